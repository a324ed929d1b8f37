"""What models cost: a price for each unit, in versions that are never changed."""

from __future__ import annotations

import time
from decimal import Decimal

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database
from openmaas.errors import InvalidRequest
from openmaas.inference import Usage
from openmaas.schema import prices as table
from openmaas.tenancy.quota import NANO

MILLION = 10**6
MOST = 10**6  # currency units for a million
ANY = "*"  # the model that stands for all that have no price of their own


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Currency units for a million of each."""

    input: Decimal = Decimal(0)  # tokens
    cached: Decimal | None = None  # tokens that the prefix cache held; None: as ``input``
    output: Decimal = Decimal(0)  # tokens
    row: Decimal = Decimal(0)  # of an ordinary network
    request: Decimal = Decimal(0)
    second: Decimal = Decimal(0)  # of training

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not (value.is_finite() and 0 <= value <= MOST):
                raise ValueError(f"{name} is from 0 to {MOST}")


class Price(msgspec.Struct, frozen=True):
    """One version of a model's price, in nano-units for a million."""

    id: int
    model: str
    since: int
    input: int = 0
    cached: int = 0
    output: int = 0
    row: int = 0
    request: int = 0
    second: int = 0

    def cost(self, usage: Usage, *, requests: int = 1, seconds: int = 0) -> int:
        """Nano-units, rounded half up once."""
        if not self.id:
            return 0
        fresh = usage.input_tokens - usage.cached_tokens
        millionths = (
            fresh * self.input
            + usage.cached_tokens * self.cached
            + usage.output_tokens * self.output
            + usage.rows * self.row
            + requests * self.request
            + seconds * self.second
        )
        return (millionths + MILLION // 2) // MILLION


FREE = Price(0, ANY, 0)


class Prices:
    """The prices in force, read anew when they change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._current: dict[str, Price] = {}

    def of(self, model: str) -> Price:
        """What is in force as of the last ``load``."""
        return self._current.get(model) or self._current.get(ANY) or FREE

    def load(self) -> None:
        """Reads what is in force."""
        newest = sa.select(sa.func.max(table.c.id)).group_by(table.c.model)
        with self._database.read() as connection:
            rows = connection.execute(sa.select(table).where(table.c.id.in_(newest))).all()
        self._current = {row.model: Price(*row) for row in rows}

    def list(self) -> list[Price]:
        """Every version, the oldest first."""
        with self._database.read() as connection:
            return [Price(*row) for row in connection.execute(sa.select(table).order_by("id"))]

    def set(self, model: str, rates: Rates, by: By) -> Price:
        """A new version, in force for requests that end after it is known, within a second.

        Raises:
            InvalidRequest: a model's name that is none.
        """
        if not 1 <= len(model) <= 256:
            raise InvalidRequest("a model's name has from 1 to 256 characters", param="model")
        nano = {
            name: int(value * NANO)
            for name in Rates.__struct_fields__
            if (value := getattr(rates, name)) is not None
        }
        row = {"cached": nano["input"], **nano, "model": model, "since": int(time.time())}
        with self._database.write() as connection:
            insert = table.insert().values(**row).returning(table.c.id)
            id = connection.execute(insert).scalar_one()
            told = {name: str(getattr(rates, name)) for name in Rates.__struct_fields__}
            by.note(connection, "price.set", model, **told)
        return Price(id=id, **row)  # type: ignore[arg-type]

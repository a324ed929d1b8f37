"""What is held of a tenant: what, where, why, until when, sealed with what. No content."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from openmaas.database import FILE, Database
from openmaas.errors import NotFound
from openmaas.privacy.erasing import amount
from openmaas.privacy.erasures import Erasures, State
from openmaas.privacy.holdings import HOLDINGS, IN_MEMORY, Fate, Holding
from openmaas.privacy.retained import BODY_BYTES, Day, RetainedExchanges
from openmaas.schema import cards, datasets, tenants
from openmaas.tenancy.privacy import PrivacyPolicy, privacy

WORK = ("jobs", "sessions", "batches")  # folders whose size no row tells


class Held(msgspec.Struct, frozen=True):
    """Of one kind.

    Attributes:
        bytes: on disk; of rows alone 0.
        erased: what erasing the tenant does to it.
    """

    kind: str
    count: int
    bytes: int
    where: str
    purpose: str
    until: str
    sealed: str
    erased: Fate


class Learnt(msgspec.Struct, frozen=True):
    """A version, and what it was trained on.

    Attributes:
        there: the data set still is.
        privacy: what its card says of ε and δ; None: it was not trained privately.
    """

    model: str
    version: int
    dataset: str
    there: bool
    privacy: dict[str, Any] | None


class Past(msgspec.Struct, frozen=True):
    """An erasure."""

    id: str
    object: str
    state: State
    requested: int
    finished: int | None


class Report(msgspec.Struct, frozen=True):
    tenant: str
    made: int  # Unix seconds
    closed: int | None
    policy: PrivacyPolicy
    held: Sequence[Held]
    retained: Sequence[Day]
    trained: Sequence[Learnt]
    erasures: Sequence[Past]
    memory_only: Sequence[str] = IN_MEMORY


class Reports:
    """All methods block; call them from a thread in the gateway.

    Args:
        folder: the data folder.
    """

    def __init__(
        self, database: Database, folder: Path, retained: RetainedExchanges, erasures: Erasures
    ) -> None:
        self._database = database
        self._folder = folder
        self._retained = retained
        self._erasures = erasures
        self._rows = FILE if database.dialect == "sqlite" else "PostgreSQL"

    def of(self, tenant: str) -> Report:
        """
        Raises:
            NotFound: there is no such tenant.
        """
        query = sa.select(tenants.c.privacy, tenants.c.closed).where(tenants.c.id == tenant)
        with self._database.read() as connection:
            row = connection.execute(query).first()
            if row is None:
                raise NotFound(f"no tenant {tenant[:64]!r}")
            policy = privacy(row.privacy)
            held = [self._held(connection, one, tenant, policy) for one in HOLDINGS]
            trained = _trained(connection, tenant)
        past = [
            Past(one.id, one.object, one.state, one.requested, one.finished)
            for one in self._erasures.list(tenant)
        ]
        return Report(
            tenant, int(time.time()), row.closed, policy, held, self._retained.days(tenant),
            trained, past,
        )  # fmt: skip

    def _held(
        self, connection: sa.Connection, holding: Holding, tenant: str, policy: PrivacyPolicy
    ) -> Held:
        found = amount(connection, holding, tenant)
        size = found.bytes
        if holding.folder in WORK:
            ids = sa.select(holding.table.c.id).where(holding.owner == tenant)
            size = sum(self._size(holding.folder, id) for id in connection.execute(ids).scalars())
        where = f"table {holding.table.name} ({self._rows})"
        if holding.folder:
            where += f", folder {holding.folder}"
        until = holding.until
        if holding.kind == "retained exchanges" and policy.retain_days is not None:
            until = (
                f"{policy.retain_days} days after they were made, each cut at {BODY_BYTES} bytes"
            )
        return Held(
            holding.kind, found.count, size, where, holding.purpose, until, holding.sealed,
            holding.fate,
        )  # fmt: skip

    def _size(self, folder: str, id: str) -> int:
        path = self._folder / folder / id
        if folder == "batches":
            path = path.with_name(f"{id}.jsonl")
        return size_of(path)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all in a folder; 0 where there is none."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    except FileNotFoundError:  # it is going at this very moment
        return 0


def _trained(connection: sa.Connection, tenant: str) -> list[Learnt]:
    query = sa.select(cards.c.model, cards.c.version, cards.c.card).where(cards.c.tenant == tenant)
    there = set(
        connection.execute(sa.select(datasets.c.id).where(datasets.c.tenant == tenant)).scalars()
    )
    found = []
    for row in connection.execute(query.order_by(cards.c.model, cards.c.version)):
        card = row.card or {}
        dataset = (card.get("dataset") or {}).get("id")
        if dataset:
            learnt = Learnt(row.model, row.version, dataset, dataset in there, card.get("privacy"))
            found.append(learnt)
    return found

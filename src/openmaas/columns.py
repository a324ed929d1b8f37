"""Rows of a table as a network reads them: what a version of a tabular network carries with it.

``columns.json`` is a list with an object for each column. A number column's own ``missing`` stands
in where there is no number; a category is the place of its text among ``values``, from 1, and 0
where it is none of them or missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from openmaas.errors import ArtifactRefused, InvalidRequest

MAX_COLUMNS = 256
MAX_BYTES = 16 << 20
FILE = "columns.json"

_Name = Annotated[str, Meta(min_length=1, max_length=200)]


class Column(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    name: _Name
    kind: Literal["number", "category"]
    values: Annotated[list[str], Meta(max_length=1_000_000)] = []  # of a category
    missing: float | None = None  # of a number column; None: none may be missing
    input: _Name | None = None  # the network's own name of it; None: the column's

    @property
    def port(self) -> str:
        return self.input or self.name

    @property
    def datatype(self) -> str:
        """As requests carry it."""
        return "FP32" if self.kind == "number" else "BYTES"


def decode(data: bytes) -> list[Column]:
    """
    Raises:
        ArtifactRefused: it is too large, damaged, or names a column or an input twice.
    """
    try:
        if len(data) > MAX_BYTES:
            raise ArtifactRefused(f"{FILE} is too large.")
        columns = msgspec.json.decode(data, type=list[Column])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactRefused(f"{FILE} is damaged: {error}") from None
    if not 1 <= len(columns) <= MAX_COLUMNS:
        raise ArtifactRefused(f"{FILE} has {len(columns)} columns; from 1 to {MAX_COLUMNS}.")
    for names in ([one.name for one in columns], [one.port for one in columns]):
        if len(set(names)) != len(names):
            raise ArtifactRefused(f"{FILE} names a column or an input twice.")
    for column in columns:
        wrong = column.values if column.kind == "number" else column.missing is not None
        if wrong or len(set(column.values)) != len(column.values) or "" in column.values:
            raise ArtifactRefused(f"{FILE}: {column.name} is no sane {column.kind}.")
    return columns


def numbers(column: Column, values: Sequence[float | None]) -> list[float]:
    """A number column's values, with what stands in where one is missing (None or NaN).

    Raises:
        InvalidRequest: one is missing that may not be, or infinite.
    """
    made = []
    for row, value in enumerate(values):
        if value is None or math.isnan(value):
            if column.missing is None:
                raise InvalidRequest(
                    f"{column.name!r}, row {row}: a number is missing, and none was in the data "
                    "that the network was trained on",
                    param=column.name,
                )
            value = column.missing
        elif math.isinf(value):
            raise InvalidRequest(f"{column.name!r}, row {row}: no finite number", param=column.name)
        made.append(value)
    return made


class Places:
    """A category's texts → their places, from 1."""

    def __init__(self, column: Column) -> None:
        self._places = {value: at for at, value in enumerate(column.values, 1)}

    def __call__(self, values: Sequence[str | None]) -> list[int]:
        return [self._places.get(value, 0) if value is not None else 0 for value in values]

"""JSON Lines: an object a line, whose values are texts, numbers, booleans or null."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from openmaas.errors import InvalidRequest
from openmaas.training.data import Description, Preview
from openmaas.training.formats.bounds import COLUMNS, FIELD, LINE, BadRows, Budget, check_names
from openmaas.training.formats.hiding import Hiding
from openmaas.training.formats.table import Batch, Source, build
from openmaas.training.options import Options

BATCH_CELLS = 200_000
BATCH_CHARACTERS = 8 << 20
BOM = b"\xef\xbb\xbf"
_INT64 = range(-(2**63), 2**63)


def read(
    path: Path, out: Path, options: Options, hiding: Hiding | None = None
) -> tuple[Description, Preview]:
    """
    Raises:
        InvalidRequest: it is no such JSON Lines.
    """
    bad = BadRows(options)
    types: dict[str, set[type]] = {}
    rows = 0
    for _, found in _objects(path, bad):
        rows += 1
        for name, value in found.items():
            types.setdefault(name, set()).add(_type(value))
        if len(types) > COLUMNS:
            break
    names = list(types)
    if not names and not bad.count:
        raise InvalidRequest("it is empty")
    check_names(names)
    kinds = [_arrow(types[name] - {type(None)}) for name in names]
    # Every row has every column in the end: known now, before any of it is written.
    Budget(path.stat().st_size).take(rows * len(names))
    budget = Budget(path.stat().st_size)
    batches = _batches(path, names, kinds, budget)
    return build(Source("jsonl", names, kinds, batches), out, options, bad, hiding)


def _objects(path: Path, bad: BadRows | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects with the numbers of their lines.

    Args:
        bad: None: those that are bad are passed over, as they were told of before.
    """
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(LINE + 1):
            number += 1
            if len(line) > LINE:
                raise InvalidRequest(f"line {number} has over {LINE >> 20} MB")
            if number == 1:
                line = line.removeprefix(BOM)
            if not line.strip():
                continue
            found = _object(line)
            if isinstance(found, dict):
                yield number, found
            elif bad is not None:
                bad.add(number, found)


def _object(line: bytes) -> dict[str, Any] | str:
    """The object, or what is wrong with it."""
    try:
        found = msgspec.json.decode(line)
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except (msgspec.DecodeError, RecursionError) as error:
        return f"it is not JSON: {error}"
    if not isinstance(found, dict):
        return "it is no object"
    for name, value in found.items():
        if isinstance(value, dict | list):
            return f"{name[:64]!r} is nested; values are texts, numbers, booleans or null"
        if isinstance(value, str):
            if len(value) > FIELD:
                return f"{name[:64]!r} has over {FIELD} characters"
            if "\0" in value:
                return f"{name[:64]!r} has a NUL character"
    return found


def _type(value: Any) -> type:
    if isinstance(value, int) and not isinstance(value, bool) and value not in _INT64:
        return float
    return type(value)


def _arrow(types: set[type]) -> Any:
    if types == {bool}:
        return pa.bool_()
    if types == {int}:
        return pa.int64()
    return pa.float64() if types and types <= {int, float} else pa.string()


def _batches(path: Path, names: list[str], kinds: list[Any], budget: Budget) -> Iterator[Batch]:
    lines: list[int] = []
    rows: list[dict[str, Any]] = []
    size = 0
    for number, found in _objects(path, None):
        taken = sum(len(one) if isinstance(one, str) else 8 for one in found.values()) + len(names)
        budget.take(taken)
        size += taken
        lines.append(number)
        rows.append(found)
        if len(rows) * len(names) >= BATCH_CELLS or size >= BATCH_CHARACTERS:
            yield lines, _columns(rows, names, kinds)
            lines, rows, size = [], [], 0
    if rows:
        yield lines, _columns(rows, names, kinds)


def _columns(rows: list[dict[str, Any]], names: list[str], kinds: list[Any]) -> list[list[Any]]:
    found: list[list[Any]] = []
    for name, kind in zip(names, kinds, strict=True):
        column = [row.get(name) for row in rows]
        if kind == pa.string():
            column = [_text(value) for value in column]
        elif kind == pa.float64():
            column = [None if value is None else float(value) for value in column]
        found.append(column)
    return found


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None  # as of CSV, no text is no value
    return msgspec.json.encode(value).decode()

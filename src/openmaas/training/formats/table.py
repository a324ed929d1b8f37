"""Rows of a table become its canonical form, in two passes that hold a batch at a time.

The first looks at every value and sets the rows aside on disk; then it is known what the columns
are, and the second writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.training.data import SPLIT, SPLITS, TABLE, Column, Description, Label, Preview
from openmaas.training.formats import splits
from openmaas.training.formats.bounds import ROWS, BadRows
from openmaas.training.formats.columns import Decision, Guess, Tally, cast
from openmaas.training.formats.hiding import Hiding
from openmaas.training.options import Format, Fractions, Options

Batch = tuple[list[int], list[Any]]  # line numbers, columns of values or of Arrow's arrays
PREVIEW_ROWS = 20
PREVIEW_CHARACTERS = 500
_DTYPES = {pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool", pa.string(): "string"}


class Source(NamedTuple):
    format: Format
    names: list[str]
    types: list[Any] | None  # of Arrow; None: texts alone, of a format without types
    batches: Iterator[Batch]


def build(
    source: Source, out: Path, options: Options, bad: BadRows, hiding: Hiding | None = None
) -> tuple[Description, Preview]:
    """Writes the canonical form of a table to ``out``.

    Raises:
        InvalidRequest: there is nothing to learn from it, or an option names what is not there.
    """
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    target = _check_names(source.names, options)
    staged = out.with_name("staged.parquet")
    guesses = [Guess(one) for one in source.types or [None] * len(source.names)]
    hiding = hiding or Hiding()
    rows = _stage(source, guesses, staged, hiding)
    bad.check(rows)
    if not rows:
        raise InvalidRequest("it has no rows")
    decisions = [
        guess.decide(rows, options.kinds.get(name), target=name == target)
        for name, guess in zip(source.names, guesses, strict=True)
    ]
    table = _Table(source.names, decisions, target, options, hiding)
    return table.write(staged, out, bad, source.format)


def _check_names(names: list[str], options: Options) -> str | None:
    asked: dict[str, list[str | None]] = {"target": [options.target], "kinds": [*options.kinds]}
    asked["split"] = [options.split if isinstance(options.split, str) else None]
    for option, columns in asked.items():
        for name in columns:
            if name is not None and name not in names:
                known = ", ".join(map(repr, names[:20])) + (" …" if len(names) > 20 else "")
                raise InvalidRequest(f"{option} names {name!r}; the columns are: {known}")
    left = [name for name in names if name != options.split]
    return splits.target_of(left, options.target)


def _stage(source: Source, guesses: list[Guess], staged: Path, hiding: Hiding) -> int:
    """Sets all rows aside while the guesses look at them; how many there are."""
    types = source.types or [pa.string()] * len(source.names)
    fields = [pa.field(f"c{number}", one) for number, one in enumerate(types)]
    schema = pa.schema([pa.field("line", pa.int64()), *fields])
    rows = 0
    with pq.ParquetWriter(staged, schema, compression="lz4") as writer:
        for lines, columns in source.batches:
            rows += len(lines)
            if rows > ROWS:
                raise InvalidRequest(f"it has over {ROWS} rows")
            arrays = [
                column if isinstance(column, pa.Array) else pa.array(column, one)
                for column, one in zip(columns, types, strict=True)
            ]
            for guess, array in zip(guesses, arrays, strict=True):
                guess.see(array)
                if array.type == pa.string():
                    hiding.avoid(array)
            batch = pa.RecordBatch.from_arrays([pa.array(lines, pa.int64()), *arrays],
                                               schema=schema)  # fmt: skip
            writer.write_batch(batch)
    return rows


class _Table:
    """The second pass."""

    def __init__(
        self,
        names: list[str],
        decisions: list[Decision],
        target: str | None,
        options: Options,
        hiding: Hiding,
    ) -> None:
        self._hiding = hiding
        self._target = target
        self._options = options
        self._split_at = names.index(options.split) if isinstance(options.split, str) else None
        self._kept = [at for at in range(len(names)) if at != self._split_at]
        self._names = names
        self._decisions = decisions
        self._tallies = [Tally() for _ in names]
        self._prints = [_Print() for _ in names]
        self._split: list[NDArray[np.uint8]] = []
        self._groups: list[NDArray[np.int64]] = []
        self._codes: dict[Any, int] = {}
        self._preview: list[list[Any]] = []
        self._rows = 0

    def write(
        self, staged: Path, out: Path, bad: BadRows, form: Format
    ) -> tuple[Description, Preview]:
        schema = pa.schema([pa.field(self._names[at], self._decisions[at].type)
                            for at in self._kept])  # fmt: skip
        file = pq.ParquetFile(staged)
        with pq.ParquetWriter(out / TABLE, schema, compression="zstd") as writer:
            for group in range(file.num_row_groups):
                arrays = self._batch(file.read_row_group(group), bad)
                if len(arrays[0]):
                    writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
        bad.check(self._rows)
        staged.unlink()
        if not self._rows:
            raise InvalidRequest("no row of it is good")
        split = self._splits()
        np.save(out / SPLIT, split)
        return self._described(split, bad, form), Preview(
            [self._names[at] for at in self._kept], self._preview
        )

    def _batch(self, rows: Any, bad: BadRows) -> list[Any]:
        """The good rows of a batch, as they are to be."""
        lines = rows.column(0).to_pylist()
        keep = np.ones(len(lines), bool)
        arrays = []
        for at, decision in enumerate(self._decisions):
            given = rows.column(at + 1).combine_chunks()
            if at == self._split_at:
                decision = Decision("text", pa.string())
            array, wrong = cast(given, decision)
            if wrong is not None:
                for row in np.flatnonzero(wrong & keep).tolist():
                    value = self._hiding.told(str(given[row].as_py()))[:64]
                    bad.add(lines[row], f"{self._names[at]!r} is {value!r}, which is no number")
                keep &= ~wrong
            arrays.append(array)
        if self._options.target is not None:  # what is to be learned must be told
            at = self._names.index(self._options.target)
            missing = np.asarray(arrays[at].is_null()) & keep
            for row in np.flatnonzero(missing).tolist():
                bad.add(lines[row], f"the target {self._options.target!r} has no value")
            keep &= ~missing
        split = self._told_splits(arrays, lines, keep, bad)
        mask = pa.array(keep)
        arrays = [self._seen(at, arrays[at].filter(mask)) for at in self._kept]
        self._note(arrays)
        if split is not None:
            self._split.append(split[keep])
        return arrays

    def _seen(self, at: int, array: Any) -> Any:
        """A column without the personal data that its owner has hidden."""
        if array.type != pa.string():
            return array
        return self._hiding.column(self._names[at], array)

    def _told_splits(
        self, arrays: list[Any], lines: list[int], keep: NDArray[np.bool_], bad: BadRows
    ) -> NDArray[np.uint8] | None:
        """Of each row, where a column says it; rows where it says nothing known are bad."""
        if self._split_at is None:
            return None
        split = np.zeros(len(lines), np.uint8)
        for row, text in enumerate(arrays[self._split_at].to_pylist()):
            number = splits.NAMES.get((text or "").strip().lower())
            if number is not None:
                split[row] = number
            elif keep[row]:
                keep[row] = False
                said = self._hiding.told(text or "")[:64]
                bad.add(lines[row], f"{self._names[self._split_at]!r} is {said!r}; "
                        f"it is to be one of: {', '.join(SPLITS)}")  # fmt: skip
        return split

    def _note(self, arrays: list[Any]) -> None:
        self._rows += len(arrays[0]) if arrays else 0
        for at, array in zip(self._kept, arrays, strict=True):
            decision = self._decisions[at]
            self._tallies[at].see(array, decision.kind)
            if decision.kind == "category" and self._tallies[at].counts is None:
                raise InvalidRequest(f"{self._names[at]!r} has too many values for a category")
            self._prints[at].see(array)
            if self._names[at] == self._target and decision.kind == "category":
                codes = [self._codes.setdefault(one, len(self._codes)) for one in array.to_pylist()]
                self._groups.append(np.array(codes, np.int64))
        wanted = PREVIEW_ROWS - len(self._preview)
        if wanted > 0:
            columns = [[_shown(one) for one in array[:wanted].to_pylist()] for array in arrays]
            self._preview += map(list, zip(*columns, strict=True))

    def _splits(self) -> NDArray[np.uint8]:
        if not isinstance(self._options.split, Fractions):
            return np.concatenate(self._split)
        groups = np.zeros(self._rows, np.int64)
        if self._groups:  # numbered as their values are sorted, not as they came
            order = sorted(self._codes, key=lambda one: (one is None, str(one)))
            rank = np.empty(len(order), np.int64)
            rank[[self._codes[one] for one in order]] = np.arange(len(order))
            groups = rank[np.concatenate(self._groups)]
        return splits.assign(groups, self._options.split, self._options.seed)

    def _described(self, split: NDArray[np.uint8], bad: BadRows, form: Format) -> Description:
        columns = [self._column(at) for at in self._kept]
        for column in columns:
            if column.name == self._target:
                check_target(column)
        about = [(one.name, one.kind, one.dtype) for one in columns]
        whole = hashlib.sha256(msgspec.json.encode(["table", about]))
        for at in self._kept:
            whole.update(self._prints[at].digest())
        whole.update(split.tobytes())
        return Description(
            kind="table",
            format=form,
            rows=self._rows,
            columns=columns,
            splits=counted(split),
            fingerprint=whole.hexdigest(),
            bytes=0,  # whoever started this process measures them
            target=self._target,
            bad_rows=bad.count,
            bad=bad.first(),
            personal_data=self._hiding.found(),
            redaction=None if self._hiding.action == "off" else self._hiding.action,
        )

    def _column(self, at: int) -> Column:
        decision, tally = self._decisions[at], self._tallies[at]
        common: dict[str, Any] = {
            "name": self._names[at], "kind": decision.kind, "dtype": _DTYPES[decision.type],
            "missing": tally.missing,
        }  # fmt: skip
        if decision.kind == "number":
            return Column(**common, minimum=tally.minimum, maximum=tally.maximum, mean=tally.mean)
        counts = tally.counts
        common["unique"] = None if counts is None else len(counts)
        if decision.kind == "category":
            return Column(**common, values=labels(counts or {}))
        present = self._rows - tally.missing
        return Column(**common, characters=tally.characters / present if present else None)


class _Print:
    """Hashes a column's values, the same however they are cut into batches."""

    def __init__(self) -> None:
        self._shape = hashlib.sha256()
        self._values = hashlib.sha256()

    def see(self, array: Any) -> None:
        if pa.types.is_string(array.type):
            lengths = pc.fill_null(pc.cast(pc.binary_length(array), pa.int64()), -1)
            self._shape.update(np.asarray(lengths, "<i8").tobytes())
            self._values.update("".join(pc.fill_null(array, "").to_pylist()).encode())
        else:
            self._shape.update(np.asarray(array.is_valid(), np.uint8).tobytes())
            dtype = "<f8" if pa.types.is_floating(array.type) else "<i8"
            filled = pc.fill_null(array, False if pa.types.is_boolean(array.type) else 0)
            self._values.update(np.asarray(filled).astype(dtype).tobytes())

    def digest(self) -> bytes:
        return self._shape.digest() + self._values.digest()


def check_target(column: Column) -> None:
    """
    Raises:
        InvalidRequest: all rows have the same, so that there is nothing to learn.
    """
    same = column.minimum is not None and column.minimum == column.maximum
    if (column.values and len(column.values) < 2) or (column.kind != "text" and same):
        value = column.values[0].value if column.values else column.minimum
        raise InvalidRequest(
            f"the target {column.name!r} is {value!r} in every row: there is nothing to learn"
        )


def labels(counts: dict[str, int]) -> list[Label]:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [Label(value, rows) for value, rows in ordered]


def counted(split: NDArray[np.uint8]) -> dict[str, int]:
    found = np.bincount(split, minlength=len(SPLITS)).tolist()
    return dict(zip(SPLITS, found, strict=True))


def _shown(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value[:PREVIEW_CHARACTERS] if isinstance(value, str) else value

"""Arrays become their canonical form: a file each, written and looked at a few rows at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.training.data import SPLIT, Column, Description, Preview
from openmaas.training.formats import splits
from openmaas.training.formats.bounds import BadRows
from openmaas.training.formats.hiding import Hiding
from openmaas.training.formats.table import PREVIEW_ROWS, check_target, counted, labels
from openmaas.training.options import Format, Fractions, Options

HEADER = 256  # bytes, whatever the number of rows comes to
DISTINCT = 1000  # values of whole numbers that are counted
PREVIEW_NUMBERS = 64  # of one row of an array


class ArrayFile:
    """One array of the canonical form, being written.

    Args:
        shape: of one row.
        classes: names of the values, where they have some.
    """

    def __init__(
        self, out: Path, name: str, dtype: str, shape: list[int], classes: list[str] | None = None
    ) -> None:
        self.name = name
        self.rows = 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._shape = shape
        self._classes = classes
        self._path = out / f"{name}.npy"
        self._path.write_bytes(bytes(HEADER))  # which ``column`` fills
        self._hash = hashlib.sha256()
        self._missing = 0
        self._bounds: tuple[float, float] | None = None
        self._total, self._finite = 0.0, 0
        self._preview: list[Any] = []
        single = int(np.prod(shape, dtype=np.int64)) == 1 and self._dtype.kind in "biu"
        self._counts: dict[int, int] | None = {} if single else None
        self._codes: list[NDArray[np.int64]] = []

    def write(self, rows: NDArray[Any]) -> None:
        """
        Args:
            rows: [any, *shape].
        """
        rows = np.ascontiguousarray(rows, self._dtype)
        raw = rows.tobytes()
        with open(self._path, "ab") as file:
            file.write(raw)
        self._hash.update(raw)
        self.rows += len(rows)
        self._note(rows)
        wanted = PREVIEW_ROWS - len(self._preview)
        for row in rows[: max(0, wanted)]:
            values = [_finite(one) for one in row.reshape(-1)[:PREVIEW_NUMBERS].tolist()]
            self._preview.append(values if self._shape else values[0])

    def _note(self, rows: NDArray[Any]) -> None:
        flat = rows.reshape(len(rows), -1)
        if self._dtype.kind == "f":
            self._missing += int(np.isnan(flat).any(axis=1).sum())
            numbers = flat[np.isfinite(flat)]
        else:
            numbers = flat.reshape(-1)
        if numbers.size:
            low, high = float(numbers.min()), float(numbers.max())
            before = self._bounds or (low, high)
            self._bounds = min(low, before[0]), max(high, before[1])
            with np.errstate(over="ignore"):  # then there is no mean to tell
                self._total += float(numbers.sum(dtype=np.float64))
            self._finite += numbers.size
        if self._counts is not None:
            values, counts = np.unique(flat, return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                self._counts[value] = self._counts.get(value, 0) + count
            self._codes.append(flat.reshape(-1).astype(np.int64))
            if len(self._counts) > DISTINCT:
                self._counts = None
                self._codes = []

    def column(self) -> Column:
        """Ends the file."""
        shape = (self.rows, *self._shape)
        header = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
        length = HEADER - 10
        text = header.ljust(length - 1) + "\n"
        if len(text) != length:
            raise InvalidRequest(f"array {self.name!r} has too many dimensions")
        with open(self._path, "r+b") as file:
            file.write(b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.encode())
        counts = self._counts
        low, high = self._bounds or (None, None)
        mean = self._total / self._finite if self._finite else None
        return Column(
            name=self.name,
            kind="array",
            dtype=self._dtype.name,
            shape=self._shape,
            missing=self._missing,
            unique=None if counts is None else len(counts),
            values=labels({self._name(value): rows for value, rows in (counts or {}).items()}),
            minimum=low,
            maximum=high,
            mean=_finite(mean),
        )

    def groups(self) -> NDArray[np.int64]:
        """A number from 0 for each row: which of its few values it has; else 0."""
        if not self._codes:
            return np.zeros(self.rows, np.int64)
        return np.unique(np.concatenate(self._codes), return_inverse=True)[1].astype(np.int64)

    def preview(self) -> list[Any]:
        return self._preview

    def digest(self) -> bytes:
        return self._hash.digest()

    def _name(self, value: int) -> str:
        return self._classes[value] if self._classes else str(value)


def finish(
    arrays: list[ArrayFile],
    out: Path,
    options: Options,
    form: Format,
    *,
    classes: list[str] | None = None,
    split: NDArray[np.uint8] | None = None,
    bad: BadRows | None = None,
    hiding: Hiding,
) -> tuple[Description, Preview]:
    """Ends the files of arrays that have the same rows.

    Args:
        classes: names of the target's values.
        split: of each row, where the upload says it.
        hiding: what was done about personal data in those names.

    Raises:
        InvalidRequest: no rows, or a target that there is not, or that is the same in all.
    """
    rows = arrays[0].rows
    if not rows:
        raise InvalidRequest("it has no rows")
    columns = [one.column() for one in arrays]
    try:
        target = splits.target_of([one.name for one in arrays], options.target)
    except KeyError:
        raise InvalidRequest(
            f"target names {options.target!r}; the arrays are: "
            + ", ".join(repr(one.name) for one in arrays)
        ) from None
    groups = np.zeros(rows, np.int64)
    for one, column in zip(arrays, columns, strict=True):
        if one.name == target:
            check_target(column)
            groups = one.groups()
    if split is None:
        assert isinstance(options.split, Fractions)
        split = splits.assign(groups, options.split, options.seed)
    np.save(out / SPLIT, split)
    about = [(one.name, one.dtype, one.shape) for one in columns]
    whole = hashlib.sha256(msgspec.json.encode(["arrays", rows, about, classes or []]))
    for one in arrays:
        whole.update(one.digest())
    whole.update(split.tobytes())
    described = Description(
        kind="arrays",
        format=form,
        rows=rows,
        columns=columns,
        splits=counted(split),
        fingerprint=whole.hexdigest(),
        bytes=0,  # whoever started this process measures them
        target=target,
        classes=classes or [],
        bad_rows=0 if bad is None else bad.count,
        bad=[] if bad is None else bad.first(),
        personal_data=hiding.found(),
        redaction=None if hiding.action == "off" else hiding.action,
    )
    shown = [list(row) for row in zip(*(one.preview() for one in arrays), strict=True)]
    return described, Preview([one.name for one in arrays], shown)


def _finite(value: Any) -> Any:
    return value if not isinstance(value, float) or np.isfinite(value) else None

"""A data set in its canonical form, as ``ingest.py`` writes it and trainers read it.

A folder with ``dataset.json`` (a ``Description``) and either ``rows.parquet`` (a table: one column
for each of the description's, in its order) or one ``NAME.npy`` for each array, whose first
dimension is the row. ``split.npy`` says of each row where it belongs: uint8, an index of SPLITS.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
ColumnKind = Literal["number", "category", "text"]

DESCRIPTION = "dataset.json"
SPLIT = "split.npy"
TABLE = "rows.parquet"
PREVIEW = "preview.json"  # a ``Preview``; for looking at, not for training


class Label(msgspec.Struct, frozen=True):
    value: str
    rows: int


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of a table, or one array."""

    name: str
    kind: ColumnKind | Literal["array"]
    dtype: str  # "float64", "int64", "string", "bool"; of an array its numpy dtype
    shape: list[int] = []  # of one row of an array
    missing: int = 0  # rows without a value
    unique: int | None = None  # distinct values, where they were counted
    values: list[Label] = []  # of a category (and of integer arrays with few values), most first
    minimum: float | None = None  # of numbers
    maximum: float | None = None
    mean: float | None = None
    characters: float | None = None  # mean length of a text


class BadRow(msgspec.Struct, frozen=True):
    line: int  # from 1, as an editor counts; of an archive, the entry's number
    why: str


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a data set."""

    kind: Literal["table", "arrays"]  # a folder of images is arrays: ``image`` and ``label``
    format: str  # csv, jsonl, parquet, npz or images
    rows: int
    columns: list[Column]
    splits: dict[str, int]  # split → rows
    fingerprint: str  # sha256: of the canonical content, the splits too
    bytes: int  # of the canonical form
    target: str | None = None  # the column that looks like what is to be learned
    classes: list[str] = []  # of an integer target of arrays, if they have names
    bad_rows: int = 0  # left out, where that was allowed
    bad: list[BadRow] = []  # the first of them
    # column → kind → rows in which personal data was found, where its owner has it looked for
    personal_data: dict[str, dict[str, int]] = {}
    # what was done about it, in texts and in names of classes; None: nothing was looked for
    redaction: Literal["report", "hide", "block"] | None = None


Cell = float | int | str | bool | None


class Preview(msgspec.Struct, frozen=True):
    """The first rows; of an array's row its first numbers, of a long text its beginning."""

    columns: list[str]
    rows: list[list[Cell | list[Cell]]]


class Dataset:
    """Reads a canonical folder. Arrays are mapped, not loaded."""

    def __init__(self, folder: Path) -> None:
        import numpy as np  # not at the top: the gateway reads descriptions alone

        self._np = np
        self.folder = folder
        self.description = msgspec.json.decode(
            (folder / DESCRIPTION).read_bytes(), type=Description
        )
        self._split: NDArray[np.uint8] = self._np.load(folder / SPLIT, mmap_mode="r")
        self._table: Any = None

    def column(self, name: str) -> Column:
        """
        Raises:
            KeyError: there is none of that name.
        """
        return next(one for one in self.description.columns if one.name == name)

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Numbers of the rows of a split, ascending."""
        return self._np.flatnonzero(self._split == SPLITS.index(split))

    def array(self, name: str) -> NDArray[Any]:
        """All rows of an array, or of a number column of a table (float64, NaN where missing)."""
        if self.description.kind == "arrays":
            found: NDArray[Any] = self._np.load(self.folder / f"{name}.npy", mmap_mode="r")
            return found
        column = self._column(name)
        return self._np.asarray(column.to_numpy(zero_copy_only=False), self._np.float64)

    def texts(self, name: str) -> list[str]:
        """All rows of a text or category column of a table; "" where missing. Numbers and
        booleans become their text (1, 2.5, true)."""
        import pyarrow as pa

        column = self._column(name)
        return [one or "" for one in column.cast(pa.string()).to_pylist()]

    def _column(self, name: str) -> Any:
        import pyarrow.parquet as pq

        if self._table is None:
            self._table = pq.read_table(self.folder / TABLE)
        return self._table.column(name).combine_chunks()

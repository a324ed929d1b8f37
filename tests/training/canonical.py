"""Data sets in their canonical form, written from arrays and rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from openmaas.training.data import (
    DESCRIPTION,
    SPLIT,
    SPLITS,
    TABLE,
    Column,
    Description,
    Label,
)

Shares = tuple[float, float, float]


def split(rows: int, shares: Shares = (0.8, 0.1, 0.1), seed: int = 7) -> NDArray[np.uint8]:
    order = np.random.default_rng(seed).permutation(rows)
    ends = np.cumsum([int(rows * share) for share in shares[:2]])
    found = np.empty(rows, np.uint8)
    for number, places in enumerate(np.split(order, ends)):
        found[places] = number
    return found


def arrays(
    folder: Path,
    given: Mapping[str, NDArray[Any]],
    *,
    target: str | None = None,
    classes: Sequence[str] = (),
    splits: NDArray[np.uint8] | None = None,
) -> Path:
    folder.mkdir(parents=True)
    rows = len(next(iter(given.values())))
    for name, array in given.items():
        np.save(folder / f"{name}.npy", array)
    columns = [
        Column(name=name, kind="array", dtype=str(array.dtype), shape=list(array.shape[1:]))
        for name, array in given.items()
    ]
    return _write(folder, "arrays", columns, rows, target, list(classes), splits)


def table(
    folder: Path,
    given: Mapping[str, Sequence[Any]],
    kinds: Mapping[str, str],
    *,
    target: str | None = None,
    splits: NDArray[np.uint8] | None = None,
) -> Path:
    """``kinds``: number, category or text, of each column. A missing value is None."""
    folder.mkdir(parents=True)
    pq.write_table(pa.table({name: list(values) for name, values in given.items()}), folder / TABLE)
    columns = []
    for name, values in given.items():
        counts = Counter(str(one) for one in values if one is not None)
        whole = all(isinstance(one, int) for one in values if one is not None)
        labelled = kinds[name] == "category" or (whole and len(counts) <= 20)
        columns.append(
            Column(
                name=name,
                kind=kinds[name],  # type: ignore[arg-type]
                dtype=("int64" if whole else "float64") if kinds[name] == "number" else "string",
                missing=sum(one is None for one in values),
                unique=len(counts),
                values=[Label(*one) for one in counts.most_common()] if labelled else [],
            )
        )
    rows = len(next(iter(given.values())))
    return _write(folder, "table", columns, rows, target, [], splits)


def _write(
    folder: Path,
    kind: Any,
    columns: list[Column],
    rows: int,
    target: str | None,
    classes: list[str],
    splits: NDArray[np.uint8] | None,
) -> Path:
    splits = split(rows) if splits is None else splits
    np.save(folder / SPLIT, splits)
    described = Description(
        kind=kind,
        format="npz" if kind == "arrays" else "csv",
        rows=rows,
        columns=columns,
        splits={name: int((splits == at).sum()) for at, name in enumerate(SPLITS)},
        fingerprint="0" * 64,
        bytes=sum(path.stat().st_size for path in folder.iterdir()),
        target=target,
        classes=classes,
    )
    (folder / DESCRIPTION).write_bytes(msgspec.json.encode(described))
    return folder

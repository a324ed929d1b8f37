"""What is to be learned: classes by number, or numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.training.data import Column, Dataset
from openmaas.training.rows import Array
from openmaas.training.spec import Column as Name

MAX_CLASSES = 4096
FEW = 20  # different values that may be classes however few rows there are
USUAL = ("label", "labels", "target", "targets", "class", "y", "category", "output")


class Classes(NamedTuple):
    numbers: NDArray[np.int32]  # of each row, its class
    labels: list[str]  # of each class


def column(data: Dataset, name: Name) -> Column:
    """
    Raises:
        InvalidRequest: the data set has none of that name.
    """
    try:
        return data.column(name)
    except (KeyError, StopIteration):
        names = ", ".join(one.name for one in data.description.columns)
        raise InvalidRequest(f"no column {name!r}; there are {names[:500]}") from None


def target(data: Dataset, asked: Name | None) -> Column:
    """The column that is to be learned.

    Raises:
        InvalidRequest: there is none of that name, or none was named and none is called so.
    """
    if asked is not None:
        return column(data, asked)
    if data.description.target is not None:
        return column(data, data.description.target)
    names = [one.name for one in data.description.columns]
    for name in names:
        if name.lower() in USUAL:
            return column(data, name)
    raise InvalidRequest(f"name the target; there are {', '.join(names)[:500]}", param="target")


def inputs(data: Dataset, asked: list[Name] | None, but: Name) -> list[Column]:
    """The columns to learn from: those that are asked for, or all but the target.

    Raises:
        InvalidRequest: there is none of that name, or none at all.
    """
    if asked is None:
        found = [one for one in data.description.columns if one.name != but]
    else:
        if but in asked or len(set(asked)) != len(asked):
            raise InvalidRequest("inputs are different columns, without the target", param="inputs")
        found = [column(data, name) for name in asked]
    if not found:
        raise InvalidRequest("there is no column to learn from", param="inputs")
    return found


def text_column(data: Dataset, asked: list[Name] | None, but: Name) -> Column:
    """The one column of text.

    Raises:
        InvalidRequest: there is none, or several and none is named.
    """
    found = [one for one in inputs(data, asked, but) if one.kind in ("text", "category")]
    texts = [one for one in found if one.kind == "text"] or found
    if len(texts) != 1 or (asked is not None and len(asked) != 1):
        names = ", ".join(one.name for one in texts)
        raise InvalidRequest(
            f"the recipe reads one column of text; name it in inputs (there are: {names[:500]})",
            param="inputs",
        )
    return texts[0]


def is_class(found: Column) -> bool:
    """Whether a column looks like classes rather than like a number."""
    if found.kind == "array":
        return np.dtype(found.dtype).kind in "iub"
    return found.kind != "number" or (found.dtype == "int64" and bool(found.values))


def classes(data: Dataset, found: Column) -> Classes:
    """Labels in sorted order (numbers by their size), or as the data set names them.

    Raises:
        InvalidRequest: rows without a label, one class alone, or too many.
    """
    if found.kind == "array":
        numbers, labels = _of_array(data, found)
    elif found.kind == "number":
        numbers, labels = _of_numbers(data.array(found.name), found.name)
    else:
        texts = data.texts(found.name)
        if "" in texts:
            raise InvalidRequest(f"{texts.count('')} rows have no {found.name}", param="target")
        labels = sorted(set(texts))
        places = {label: at for at, label in enumerate(labels)}
        numbers = np.array([places[text] for text in texts], np.int32)
    if not 2 <= len(labels) <= MAX_CLASSES:
        raise InvalidRequest(
            f"{found.name} has {len(labels)} different values; classes are 2 to {MAX_CLASSES}",
            param="target",
        )
    if len(labels) > max(FEW, len(numbers) // 2):
        raise InvalidRequest(
            f"{found.name} has {len(labels)} different values in {len(numbers)} rows, which are "
            "no classes",
            param="target",
        )
    return Classes(numbers, labels)


def numbers(data: Dataset, found: Column) -> NDArray[np.float32]:
    """[rows, …]: what a regression learns.

    Raises:
        InvalidRequest: no numbers, or some that are missing or not finite.
    """
    if found.kind not in ("number", "array"):
        raise InvalidRequest(f"{found.name} is no number", param="target")
    values = np.asarray(data.array(found.name), np.float32)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InvalidRequest(f"{bad} rows of {found.name} are no finite numbers", param="target")
    return values[:, None] if values.ndim == 1 else values


def _of_array(data: Dataset, found: Column) -> tuple[NDArray[np.int32], list[str]]:
    values = data.array(found.name)
    if values.ndim == 2 and values.shape[1] > 1 and _one_hot(values):
        labels = data.description.classes or [str(at) for at in range(values.shape[1])]
        return np.asarray(values.argmax(1), np.int32), list(labels)
    values = values.reshape(len(values), -1)
    if values.shape[1] != 1:
        raise InvalidRequest(
            f"{found.name} has {values.shape[1]} numbers a row; a class is one", param="target"
        )
    named = data.description.classes
    flat = values[:, 0]
    if named and flat.dtype.kind in "iu" and flat.min() >= 0 and flat.max() < len(named):
        return np.asarray(flat, np.int32), list(named)
    return _of_numbers(flat, found.name)


def _of_numbers(values: Array, name: str) -> tuple[NDArray[np.int32], list[str]]:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InvalidRequest(f"{int((~np.isfinite(values)).sum())} rows have no {name}")
    found, numbers = np.unique(values, return_inverse=True)
    if len(found) > MAX_CLASSES:
        raise InvalidRequest(
            f"{name} has {len(found)} different numbers, which are no classes", param="target"
        )
    return np.asarray(numbers.reshape(-1), np.int32), [_text(one) for one in found.tolist()]


def _one_hot(values: Array) -> bool:
    return bool(((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all())


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def balanced(numbers: NDArray[np.int32], labels: int) -> NDArray[np.float32]:
    """Of each class, rows ÷ (classes × its rows): all weigh the same (as scikit-learn does)."""
    counts = np.bincount(numbers, minlength=labels)
    present = counts > 0
    weights = np.zeros(labels, np.float32)
    weights[present] = len(numbers) / (int(present.sum()) * counts[present])
    return weights

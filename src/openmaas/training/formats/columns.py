"""What a column is: guessed from all of its values, then each value made what it is to be."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from openmaas.training.data import ColumnKind

INTEGER = r"^[+-]?(0|[1-9][0-9]{0,17})$"  # not 007, which is a text of digits
DECIMAL = r"^[+-]?(0|[1-9][0-9]{0,30})?(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?$"
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DIGIT = r"^[+-]?\.?[0-9]"
BOOLEAN = r"(?i)^(true|false)$"
# In a column of numbers alone these are no value; elsewhere they may be one.
MARKERS = pa.array(["NaN", "nan", "NAN", "NA", "N/A", "n/a", "null", "NULL", "None", "?"])
CATEGORY_VALUES = 1000  # distinct ones that a category has at the most, unless told
CATEGORY_CHARACTERS = 200
TARGET_INTEGERS = 20  # distinct ones of a target that are taken for classes
MOST_VALUES = 10_000


class Decision(NamedTuple):
    kind: ColumnKind
    type: Any  # of Arrow: int64, float64, bool or string


class Guess:
    """Looks at all values of a column.

    Args:
        type: Arrow's; None: texts of a format without types, which may be numbers.
    """

    def __init__(self, type: Any) -> None:
        self._type = type
        self._integers = self._decimals = self._booleans = type is None
        self._seen = False  # a value that is no marker
        self._longest = 0
        self._distinct: set[Any] | None = None if type == pa.float64() else set()

    def see(self, array: Any) -> None:
        values = pc.unique(array.drop_null())
        if not len(values):
            return
        if self._distinct is not None:
            if len(values) <= CATEGORY_VALUES:
                self._distinct.update(values.to_pylist())
            if len(values) > CATEGORY_VALUES or len(self._distinct) > CATEGORY_VALUES:
                self._distinct = None
        if pa.types.is_string(values.type):
            self._longest = max(self._longest, pc.max(pc.utf8_length(values)).as_py())
        if self._integers or self._decimals or self._booleans:
            self._see_texts(values)

    def _see_texts(self, values: Any) -> None:
        values = pc.utf8_trim_whitespace(values)
        values = values.filter(pc.invert(pc.is_in(values, value_set=MARKERS)))
        if not len(values):
            return
        self._seen = True
        self._integers = self._integers and _all(values, INTEGER)
        self._decimals = self._decimals and _all(values, DECIMAL) and _all(values, _DIGIT)
        self._booleans = self._booleans and _all(values, BOOLEAN)

    def decide(self, rows: int, given: ColumnKind | None, *, target: bool) -> Decision:
        """
        Args:
            given: what the caller says that it is.
            target: whether it is what is to be learned.
        """
        base = self._base()
        if given == "text":
            return Decision("text", pa.string())
        if given == "number":
            return Decision("number", pa.int64() if base == pa.int64() else pa.float64())
        if given == "category":
            return Decision("category", pa.string() if base == pa.float64() else base)
        if base == pa.bool_() or (base == pa.int64() and target and self._classes()):
            return Decision("category", base)
        if base != pa.string():
            return Decision("number", base)
        few = self._distinct is not None and self._longest <= CATEGORY_CHARACTERS
        distinct = len(self._distinct or ())
        if few and distinct > 0 and (distinct <= rows / 2 or (target and distinct < rows)):
            return Decision("category", base)
        return Decision("text", base)

    def _base(self) -> Any:
        if self._type is not None:
            return self._type
        if not self._seen:
            return pa.string()
        if self._integers:
            return pa.int64()
        if self._decimals:
            return pa.float64()
        return pa.bool_() if self._booleans else pa.string()

    def _classes(self) -> bool:
        return self._distinct is not None and len(self._distinct) <= TARGET_INTEGERS


def cast(array: Any, decision: Decision) -> tuple[Any, NDArray[np.bool_] | None]:
    """An array made what its column is to be, and a mask of what cannot be made so, if any."""
    wanted, given = decision.type, array.type
    if pa.types.is_floating(given):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, given), array)
    if given == wanted:
        return array, None
    if not pa.types.is_string(given) or wanted == pa.string():
        return pc.cast(array, wanted), None
    texts = pc.utf8_trim_whitespace(array)
    if decision.kind != "text":
        marker = pc.is_in(texts, value_set=MARKERS)
        texts = pc.if_else(marker, pa.scalar(None, pa.string()), texts)
    if wanted == pa.bool_():
        return pc.equal(pc.utf8_lower(texts), "true"), None
    fits = pc.and_(
        pc.match_substring_regex(texts, DECIMAL), pc.match_substring_regex(texts, _DIGIT)
    )
    wrong = np.asarray(pc.fill_null(pc.invert(fits), False))
    values = [
        None if text is None or bad else (int(text) if wanted == pa.int64() else float(text))
        for text, bad in zip(texts.to_pylist(), wrong, strict=True)
    ]
    return pa.array(values, wanted), wrong if wrong.any() else None


def _all(values: Any, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())


class Tally(msgspec.Struct):
    """Counts of a column's final values."""

    missing: int = 0
    minimum: float | None = None
    maximum: float | None = None
    total: float = 0.0
    finite: int = 0
    characters: int = 0
    counts: dict[str, int] | None = {}

    def see(self, array: Any, kind: ColumnKind) -> None:
        self.missing += array.null_count
        present = array.drop_null()
        if kind == "number":
            self._see_numbers(np.asarray(present, np.float64))
        elif len(present):
            texts = pc.cast(present, pa.string())
            self.characters += pc.sum(pc.utf8_length(texts)).as_py()
            self._count(texts)

    def _see_numbers(self, values: NDArray[np.float64]) -> None:
        values = values[np.isfinite(values)]
        if len(values):
            low, high = float(values.min()), float(values.max())
            self.minimum = low if self.minimum is None else min(self.minimum, low)
            self.maximum = high if self.maximum is None else max(self.maximum, high)
            with np.errstate(over="ignore"):
                self.total += float(values.sum())
            self.finite += len(values)

    def _count(self, texts: Any) -> None:
        if self.counts is None:
            return
        for one in pc.value_counts(texts):
            value = one["values"].as_py()
            self.counts[value] = self.counts.get(value, 0) + one["counts"].as_py()
            if len(self.counts) > MOST_VALUES:
                self.counts = None
                return

    @property
    def mean(self) -> float | None:
        mean = self.total / self.finite if self.finite else None
        return mean if mean is None or np.isfinite(mean) else None

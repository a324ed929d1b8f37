"""From an explanation and its input to what is drawn: coloured texts, ranked columns, heat maps.

Everything is bounded here, so that no picture has to: what is left out is said in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from openmaas.errors import EngineFailed
from openmaas.explaining.explanation import Attribution, Explanation, Feature, Piece
from openmaas.explaining.rendering import words
from openmaas.explaining.rendering.passages import Passage, passages
from openmaas.explaining.rendering.pixels import Array, pixels, plane

CHARACTERS = 20_000  # drawn of one explanation, all its labels together
PIECES = 5_000
RANKED = 20


class Coloured(NamedTuple):
    """A text or a conversation."""

    passages: list[Passage]
    ranked: list[Piece]  # the greatest first


class Ranked(NamedTuple):
    """Columns, or the places of a tensor that is no image."""

    rows: list[Feature]  # the greatest first
    others: int  # how many are not among them
    rest: float  # and their shares added up


class Heat(NamedTuple):
    """An image, or a table of numbers."""

    values: Array  # rows × columns, summed over channels
    image: Array | None  # rows × columns × red, green and blue, 0 to 255
    ranked: Ranked


class Part(NamedTuple):
    name: str  # of the input, where there are several
    body: Coloured | Ranked | Heat


class Section(NamedTuple):
    """What is drawn of one attribution."""

    title: str
    attribution: Attribution
    greatest: float  # |attribution|: both ends of the scale
    parts: list[Part]
    left_out: list[str]


class Layout(NamedTuple):
    sections: list[Section]
    left_out: list[str]


def arrange(explanation: Explanation, given: Any, most: int) -> Layout:
    """
    Args:
        given: the explained input: a text, messages, a row, nested lists, or these by name.
        most: sections that are shown.

    Raises:
        EngineFailed: the attributions have no shape that an explanation can have.
    """
    shown = explanation.attributions[:most]
    share = max(1, len(shown))
    left_out = []
    if len(explanation.attributions) > most:
        left_out.append(f"{len(explanation.attributions) - most} more answers are not shown")
    sections = [_section(explanation, one, given, share) for one in shown]
    return Layout(sections, left_out)


def _section(explanation: Explanation, one: Attribution, given: Any, share: int) -> Section:
    left_out: list[str] = []
    found = one.featureAttributions
    if isinstance(found, dict):
        by_name = given if isinstance(given, dict) else {}
        parts = [
            Part(words.line(str(name)), _body(explanation, raw, by_name.get(name), share, left_out))
            for name, raw in list(found.items())[:10]
        ]
        if len(found) > 10:
            left_out.append(f"{len(found) - 10} more inputs are not shown")
    else:
        parts = [Part("", _body(explanation, found, given, share, left_out))]
    greatest = max((_greatest(part.body) for part in parts), default=0.0)
    title = words.line(one.outputDisplayName, 120)
    return Section(title, one, greatest, parts, left_out)


def _body(
    explanation: Explanation, raw: Any, given: Any, share: int, left_out: list[str]
) -> Coloured | Ranked | Heat:
    try:
        if isinstance(raw, list | tuple) and raw and isinstance(raw[0], Piece | Feature | dict):
            items = [_known(item, left_out) for item in msgspec.to_builtins(raw)]
            if "name" in items[0]:
                return _ranked(msgspec.convert(items, list[Feature]))
            return _coloured(
                explanation, msgspec.convert(items, list[Piece]), given, share, left_out
            )
        if isinstance(raw, list | tuple) and not raw and explanation.unit not in _TENSORS:
            return _coloured(explanation, [], given, share, left_out)
        return _tensor(np.asarray(raw, dtype=np.float64), given, left_out)
    except (ValueError, TypeError, KeyError, msgspec.ValidationError) as error:
        raise EngineFailed(f"attributions of no known shape cannot be drawn: {error}") from None


_TENSORS = ("feature", "superpixel")


def _known(item: Any, left_out: list[str]) -> dict[str, Any]:
    """The fields of a piece or column without numbers that are none, which no scale has."""
    fields = dict(item)
    for name in ("low", "high", "logprob"):
        if not _finite(fields.get(name)):
            fields.pop(name, None)
    if not _finite(fields["attribution"]):
        fields["attribution"] = 0.0
        _say(left_out, "numbers that are none are drawn as 0")
    return fields


def _finite(number: Any) -> bool:
    return isinstance(number, int | float) and math.isfinite(number)


def _say(left_out: list[str], note: str) -> None:
    if note not in left_out:
        left_out.append(note)


def _coloured(
    explanation: Explanation, pieces: list[Piece], given: Any, share: int, left_out: list[str]
) -> Coloured:
    surprise = explanation.method == "surprise"
    found, missing = passages(pieces, given, surprise, CHARACTERS // share, PIECES // share)
    if missing:
        _say(left_out, f"{missing:,} characters at the end are not drawn")
    return Coloured(found, _greatest_first(pieces)[:RANKED])


def _ranked(features: list[Feature]) -> Ranked:
    ordered = _greatest_first(features)
    rest = ordered[RANKED:]
    return Ranked(ordered[:RANKED], len(rest), math.fsum(one.attribution for one in rest))


def _greatest_first(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=lambda one: -abs(one.attribution))


def _tensor(array: Array, given: Any, left_out: list[str]) -> Ranked | Heat:
    if not np.isfinite(array).all():
        array = np.where(np.isfinite(array), array, 0.0)
        _say(left_out, "numbers that are none are drawn as 0")
    if isinstance(given, dict) and len(given) == 1:
        given = next(iter(given.values()))
    values = plane(array)
    image = pixels(given) if values is not None else None
    if values is None:
        return _greatest_places(array, given)
    return Heat(values, image, _greatest_places(values, None))


def _greatest_places(array: Array, given: Any) -> Ranked:
    """The places of a tensor, ranked; ``given`` says what was there, where it has the shape."""
    flat = array.reshape(-1)
    order = np.argsort(-np.abs(flat), kind="stable")
    there = None
    if isinstance(given, list | np.ndarray):
        try:
            held = np.asarray(given, dtype=np.float64)
            there = held.reshape(-1) if held.size == flat.size else None
        except (ValueError, TypeError):
            there = None
    rows = [
        Feature(
            name=_place(index, array.shape),
            value=None if there is None else float(there[index]),
            attribution=float(flat[index]),
        )
        for index in map(int, order[:RANKED])
    ]
    return Ranked(rows, max(0, flat.size - RANKED), float(flat[order[RANKED:]].sum()))


def _place(index: int, shape: tuple[int, ...]) -> str:
    """[2, 3]: row and column, from 0."""
    return str([int(at) for at in np.unravel_index(index, shape)]) if shape else "[]"


def _greatest(body: Coloured | Ranked | Heat) -> float:
    if isinstance(body, Heat):
        return float(np.abs(body.values).max(initial=0.0))
    rows: list[Any] = body.ranked if isinstance(body, Coloured) else body.rows
    return abs(rows[0].attribution) if rows else 0.0

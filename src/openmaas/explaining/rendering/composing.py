"""What stands where in a picture of an explanation."""

from __future__ import annotations

from typing import Any

import numpy as np

from openmaas.explaining.explanation import Explanation, Feature, Piece
from openmaas.explaining.rendering import colours, words
from openmaas.explaining.rendering.layout import Coloured, Heat, Part, Ranked, Section, arrange
from openmaas.explaining.rendering.passages import Passage
from openmaas.explaining.rendering.pixels import averaged, blocks, summed
from openmaas.explaining.rendering.sheet import (
    INSIDE,
    MARGIN,
    SMALL,
    TEXT,
    TITLE,
    WIDTH,
    Box,
    Gauge,
    Raster,
    Sheet,
)  # fmt: skip

HIGHEST = 4000  # pixels
SECTIONS = 5
RANKED = 10  # pieces and places; of columns twice as many
_LINE = 32.0  # pixels from line to line of a text
_ROW = 30.0
_FOR_ROWS = RANKED * _ROW + 60
_IMAGE = 520.0
_NUMBERED = 10  # cells on a side that have room for their numbers
_CELLS = 256


def compose(
    explanation: Explanation, given: Any, dark: bool, gauge: Gauge, more: list[str]
) -> Sheet:
    """
    Args:
        more: notes to stand below.

    Raises:
        EngineFailed: the attributions have no shape that an explanation can have.
    """
    sheet = Sheet(gauge, dark)
    sheet.y = MARGIN / 2
    layout = arrange(explanation, given, SECTIONS)
    footer = _footer(sheet.scratch(), explanation, [*layout.left_out, *more])
    room = HIGHEST - footer.y - 2 * MARGIN
    for at, section in enumerate(layout.sections):
        share = (room - sheet.y) / (len(layout.sections) - at)
        _section(sheet, explanation, section, share)
    sheet.add(footer)
    sheet.y = min(HIGHEST, sheet.y + MARGIN)
    return sheet


def _section(sheet: Sheet, explanation: Explanation, section: Section, room: float) -> None:
    """
    Args:
        room: how high it may become.
    """
    one, end = section.attribution, sheet.y + room
    sheet.y += 12
    sheet.paragraph(section.title or "answer", sheet.look.ink, size=TITLE, bold=True, most=2)
    output = f"output {words.plain(one.instanceOutputValue)}"
    if one.baselineOutputValue is not None:
        output += f", from a baseline of {words.plain(one.baselineOutputValue)}"
    sheet.paragraph(output, sheet.look.faint, size=SMALL, most=1)
    _legend(sheet, explanation, section.greatest)
    left_out = list(section.left_out)
    share = (end - sheet.y - 60) / max(1, len(section.parts))
    for part in section.parts:
        drawn = _part(sheet.scratch(), part, section.greatest, share)
        if sheet.y + drawn.y > end:
            left_out.append("not everything has room here; the HTML shows it")
            break
        sheet.add(drawn)
    for note in left_out:
        sheet.paragraph(f"({note})", sheet.look.faint, size=SMALL, most=2)
    sheet.y += 16


def _part(sheet: Sheet, part: Part, greatest: float, room: float) -> Sheet:
    if part.name:
        sheet.paragraph(part.name, sheet.look.ink, bold=True, most=1)
    if isinstance(part.body, Coloured):
        _coloured(sheet, part.body, greatest, room)
    elif isinstance(part.body, Heat):
        _heat(sheet, part.body)
        _rows(sheet, list(part.body.ranked.rows[:RANKED]), greatest)
    else:
        _ranked(sheet, part.body, greatest, room)
    return sheet


def _legend(sheet: Sheet, explanation: Explanation, greatest: float) -> None:
    toward, against = words.sides(explanation)
    first = 0 if explanation.method == "surprise" else -colours.LEVELS
    left = f"{against} {words.signed(-greatest, greatest)}" if first else "0"
    sheet.y += 26
    x, wide = float(MARGIN), 14.0
    sheet.write(x, sheet.y, left, sheet.look.ink, size=SMALL)
    x += sheet.gauge(left, SMALL, False) + 12
    for at, step in enumerate(range(first, colours.LEVELS + 1)):
        behind = colours.background(step, sheet.dark)
        sheet.box(x + at * wide, sheet.y - 14, wide, 18, behind)
    whole = (colours.LEVELS + 1 - first) * wide
    sheet.frame(x - 1, sheet.y - 15, whole + 2, 20)
    right = f"{words.signed(greatest, greatest)} {toward}"
    sheet.write(x + whole + 12, sheet.y, right, sheet.look.ink, size=SMALL)
    sheet.y += 16


def _coloured(sheet: Sheet, body: Coloured, greatest: float, room: float) -> None:
    left = max(3, int((room - _FOR_ROWS) / _LINE))
    missing = 0
    for passage in body.passages:
        drawn, more = _passage(sheet, passage, greatest, left)
        left -= drawn
        missing += more
    if missing:
        note = f"({missing:,} more lines have no room here; the HTML shows them)"
        sheet.paragraph(note, sheet.look.faint, size=SMALL, most=1)
    sheet.y += 16
    _rows(sheet, list(body.ranked[:RANKED]), greatest)


def _passage(sheet: Sheet, passage: Passage, greatest: float, most: int) -> tuple[int, int]:
    """How many lines were drawn, and how many were not."""
    indent = 18.0 if passage.role else 0.0
    lines = sheet.lines(passage.spans, indent)
    if most <= 0:
        return 0, len(lines)
    top = sheet.y + 10
    if passage.role:
        sheet.y += 30
        sheet.write(MARGIN + indent, sheet.y, passage.role, sheet.look.faint, size=SMALL, bold=True)
    for line in lines[:most]:
        sheet.y += _LINE
        for chunk in line:
            share = chunk.piece.attribution if chunk.piece else 0.0
            step, x, ink = colours.level(share, greatest), MARGIN + indent + chunk.x, sheet.look.ink
            if step:
                behind = colours.background(step, sheet.dark)
                sheet.box(x - 1, sheet.y - 20, chunk.width + 2, 27, behind)
                ink = colours.ink(behind)
            sheet.write(x, sheet.y, chunk.text, ink)
    if passage.role:
        sheet.box(MARGIN, top, 3, sheet.y + 8 - top, sheet.look.line)
    sheet.y += 12
    return min(most, len(lines)) + bool(passage.role), max(0, len(lines) - most)


def _ranked(sheet: Sheet, body: Ranked, greatest: float, room: float) -> None:
    rows = list(body.rows[: max(3, int(room / _ROW) - 2)])
    others = body.others + len(body.rows) - len(rows)
    if others:
        rest = body.rest + sum(one.attribution for one in body.rows[len(rows) :])
        rows.append(Feature(name=f"{others} others", value="", attribution=rest))
    _rows(sheet, rows, greatest)


def _rows(sheet: Sheet, rows: list[Any], greatest: float) -> None:
    """Signed numbers, bars with whiskers on both sides of a line, names and intervals."""
    numbers, names, bars = MARGIN + 110.0, MARGIN + 475.0, MARGIN + 125.0
    reach, both = words.reach(rows)
    half = 165.0 if both else 330.0
    axis = bars + half if both else bars
    for one in rows:
        sheet.y += _ROW
        look = sheet.look
        said = words.signed(one.attribution, greatest)
        sheet.write(numbers, sheet.y, said, look.ink, bold=True, align="right")
        end = one.attribution / reach * half if reach else 0.0
        colour = colours.background(colours.LEVELS if end > 0 else -colours.LEVELS, sheet.dark)
        sheet.box(axis + min(0.0, end), sheet.y - 15, abs(end), 18, colour)
        sheet.box(axis, sheet.y - 20, 1, 28, look.faint)
        if one.low is not None and one.high is not None and reach:
            low, high = (axis + at / reach * half for at in (one.low, one.high))
            sheet.box(low, sheet.y - 7, max(1.0, high - low), 2, look.ink)
            for at in (low, high):
                sheet.box(at - 1, sheet.y - 11, 2, 10, look.ink)
        spread = words.interval(one.low, one.high, greatest)
        room = WIDTH - MARGIN - names - (sheet.gauge(spread, SMALL, False) + 16 if spread else 0)
        sheet.write(names, sheet.y, _name(sheet, one, room), look.ink)
        sheet.write(WIDTH - MARGIN, sheet.y, spread, look.faint, size=SMALL, align="right")
    sheet.y += 14


def _name(sheet: Sheet, one: Piece | Feature, room: float) -> str:
    """The name is cut before the value, but not to less than half."""
    if isinstance(one, Piece):
        name = words.label(one)
        said = "" if one.message is None else f"   (message {one.message + 1})"
        said += "" if one.logprob is None else f"   logprob {words.plain(one.logprob)}"
    else:
        name = words.line(one.name)
        said = "" if one.value in (None, "") else f" = {words.value(one.value)}"
    spare = room - sheet.gauge(said, TEXT, False)
    if said:
        name = sheet.fitted(name, max(spare, room / 2))
    return sheet.fitted(name + said, room)


def _heat(sheet: Sheet, body: Heat) -> None:
    shape = body.values.shape
    side = blocks(shape, _CELLS, _CELLS)
    cells = summed(body.values, side)
    scale = float(np.abs(cells).max(initial=0.0))
    table = np.array([
        colours.channels(colours.background(step, sheet.dark))
        for step in range(-colours.LEVELS, colours.LEVELS + 1)
    ], dtype=np.float64)  # fmt: skip
    steps = np.rint(np.clip(cells / scale if scale else cells, -1, 1) * colours.LEVELS)
    box = _framed(sheet, MARGIN, shape)
    sheet.rasters.append(Raster(box, table[steps.astype(int) + colours.LEVELS]))
    if max(cells.shape) <= _NUMBERED:
        wide, tall = box.width / shape[1], box.height / shape[0]
        for (row, column), value in np.ndenumerate(cells):
            step = colours.level(float(value), scale)
            ink = colours.ink(colours.background(step, sheet.dark)) if step else sheet.look.faint
            x, y = box.x + (column + 0.5) * wide, box.y + (row + 0.5) * tall + 5
            said = words.short(float(value), scale)
            sheet.write(x, y, said, ink, size=min(SMALL, wide / 3.2), align="center")
    caption = f"attribution, {shape[0]} × {shape[1]}"
    caption += f"; a cell is {side} × {side} values added up" if side > 1 else ""
    bottom = box.y + box.height
    sheet.write(MARGIN, bottom + 22, caption, sheet.look.faint, size=SMALL)
    if body.image is not None:
        beside = MARGIN + INSIDE - _IMAGE
        other = _framed(sheet, beside, body.image.shape)
        image = averaged(body.image, blocks(body.image.shape, _CELLS, _CELLS))
        sheet.rasters.append(Raster(other, image))
        under = other.y + other.height
        sheet.write(beside, under + 22, "input", sheet.look.faint, size=SMALL)
        bottom = max(bottom, under)
    sheet.y = bottom + 40


def _framed(sheet: Sheet, x: float, shape: tuple[int, ...]) -> Box:
    """Where an image goes: as large as there is room, with square cells."""
    cell = _IMAGE / max(shape[:2])
    wide, tall = max(2.0, cell * shape[1]), max(2.0, cell * shape[0])
    sheet.frame(x - 1, sheet.y + 9, wide + 2, tall + 2)
    return Box(x, sheet.y + 10, wide, tall, sheet.look.page)


def _footer(sheet: Sheet, explanation: Explanation, more: list[str]) -> Sheet:
    sheet.y += 8
    sheet.box(MARGIN, sheet.y, INSIDE, 1, sheet.look.line)
    facts = " · ".join(f"{name} {value}" for name, value in words.facts(explanation))
    sheet.paragraph(facts, sheet.look.faint, size=SMALL, most=5)
    for note in [*words.notes(explanation), *more][:12]:
        sheet.paragraph(f"• {note}", sheet.look.faint, size=SMALL, most=3)
    return sheet

"""An explanation as HTML that needs nothing else: no script, no resource, no style in elements."""

from __future__ import annotations

from html import escape
from typing import Any

from openmaas.explaining.explanation import Explanation, Feature, Piece
from openmaas.explaining.rendering import colours, words
from openmaas.explaining.rendering.html_style import POLICY, STYLE, level
from openmaas.explaining.rendering.layout import Coloured, Heat, Ranked, Section, arrange
from openmaas.explaining.rendering.passages import Passage
from openmaas.explaining.rendering.pixels import Array, averaged, blocks, summed

SECTIONS = 10
CELLS = 64  # on a side
NUMBERED = 10  # cells on a side that have room for their numbers


def page(explanation: Explanation, given: Any) -> str:
    """A document.

    Args:
        given: the explained input.

    Raises:
        EngineFailed: the attributions have no shape that an explanation can have.
    """
    title = _text(f"{words.line(explanation.model)}: {words.method(explanation)}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n</head>\n<body>\n{fragment(explanation, given)}</body>\n</html>\n"
    )


def fragment(explanation: Explanation, given: Any) -> str:
    """The same as a part of another page, a notebook's for instance."""
    layout = arrange(explanation, given, SECTIONS)
    sections = "".join(_section(explanation, one) for one in layout.sections)
    return (
        f'<style>{STYLE}</style>\n<div class="omx">\n{sections}{_notes(layout.left_out)}'
        f"{_footer(explanation)}</div>\n"
    )


def _text(text: str) -> str:
    return escape(words.harmless(text), quote=True)


def _section(explanation: Explanation, section: Section) -> str:
    one = section.attribution
    output = f"output {words.plain(one.instanceOutputValue)}"
    if one.baselineOutputValue is not None:
        output += f", from a baseline of {words.plain(one.baselineOutputValue)}"
    if one.approximationError is not None:
        output += f"; approximation error {words.plain(one.approximationError)}"
    parts = []
    for part in section.parts:
        if part.name:
            parts.append(f"<h3>{_text(part.name)}</h3>\n")
        if isinstance(part.body, Coloured):
            parts.append(_coloured(part.body, section.greatest))
        elif isinstance(part.body, Heat):
            parts.append(_heat(part.body, section.greatest))
        else:
            parts.append(_ranked(part.body, section.greatest))
    return (
        f'<section>\n<h2 dir="auto">{_text(section.title or "answer")}</h2>\n'
        f'<p class="faint">{_text(output)}</p>\n{_legend(explanation, section.greatest)}'
        f"{''.join(parts)}{_notes(section.left_out)}</section>\n"
    )


def _legend(explanation: Explanation, greatest: float) -> str:
    toward, against = words.sides(explanation)
    low, high = words.signed(-greatest, greatest), words.signed(greatest, greatest)
    first = 0 if explanation.method == "surprise" else -colours.LEVELS
    scale = "".join(f'<i class="{level(at)}"></i>' for at in range(first, colours.LEVELS + 1))
    left = f"<span>{against} {low}</span>" if first else "<span>0</span>"
    return (
        f'<div class="legend">{left}<span class="scale" aria-hidden="true">{scale}</span>'
        f"<span>{high} {toward}</span></div>\n"
    )


def _coloured(body: Coloured, greatest: float) -> str:
    passages = "".join(_passage(one, greatest) for one in body.passages)
    return passages + _rows(body.ranked, greatest)


def _passage(passage: Passage, greatest: float) -> str:
    spans = []
    for text, piece in passage.spans:
        if piece is None:
            spans.append(_text(text))
            continue
        step = colours.level(piece.attribution, greatest)
        about = _text(words.about(piece, greatest))
        spans.append(f'<span class="{level(step)}" title="{about}">{_text(text)}</span>')
    text = f'<div class="text" dir="auto">{"".join(spans)}</div>\n'
    if not passage.role:
        return text
    return f'<div class="message"><div class="role">{_text(passage.role)}</div>{text}</div>\n'


def _ranked(body: Ranked, greatest: float) -> str:
    rows = list(body.rows)
    if body.others:
        rows.append(Feature(name=f"{body.others} others", value="", attribution=body.rest))
    return _rows(rows, greatest)


def _rows(rows: list[Any], greatest: float) -> str:
    if not rows:
        return ""
    reach, both = words.reach(rows)
    items = []
    for one in rows:
        said = words.interval(one.low, one.high, greatest)
        items.append(
            f'<li title="{_text(words.about(one, greatest))}">'
            f"<b>{words.signed(one.attribution, greatest)}</b>{_bar(one, reach, both)}"
            f'<bdi class="name">{_name(one)}</bdi>'
            f"{f'<small>{said}</small>' if said else ''}</li>\n"
        )
    return f'<ol class="rows">\n{"".join(items)}</ol>\n'


def _name(one: Piece | Feature) -> str:
    if isinstance(one, Piece):
        where = "" if one.message is None else f" <small>in message {one.message + 1}</small>"
        said = "" if one.logprob is None else f" <small>logprob {words.plain(one.logprob)}</small>"
        return _text(words.label(one)) + said + where
    said = "" if one.value in (None, "") else f" = {_text(words.value(one.value))}"
    return _text(words.line(one.name)) + said


def _bar(one: Piece | Feature, reach: float, both: bool) -> str:
    """From a line to its right, or to both sides; whiskers are the interval."""

    def place(value: float) -> float:
        return round(100 * max(-1.0, min(1.0, value / reach)), 2) + 0.0 if reach else 0.0

    end = place(one.attribution)
    shapes = (
        f'<rect class="{level(colours.LEVELS if end > 0 else -colours.LEVELS)}" '
        f'x="{min(0.0, end):g}" y="3" width="{abs(end):g}" height="14"/>'
        '<line class="axis" x1="0" x2="0" y1="0" y2="20"/>'
    )
    if one.low is not None and one.high is not None:
        low, high = place(one.low), place(one.high)
        shapes += (
            f'<path class="whisker" fill="none" d="M{low:g} 6v8M{low:g} 10H{high:g}M{high:g} 6v8"/>'
        )
    return (
        f'<svg class="bar" viewBox="{"-101 0 202" if both else "-1 0 102"} 20" '
        'preserveAspectRatio="none" aria-hidden="true">'
        f"{shapes}</svg>"
    )


def _heat(body: Heat, greatest: float) -> str:
    shape = body.values.shape
    side = blocks(shape, CELLS, CELLS)
    caption = f"attribution, {shape[0]} × {shape[1]}"
    if side > 1:
        caption += f"; a cell is {side} × {side} values added up"
    drawn = (
        f"<figure>{_cells(summed(body.values, side))}<figcaption>{caption}</figcaption></figure>"
    )
    if body.image is not None:
        image = averaged(body.image, blocks(body.image.shape, CELLS, CELLS))
        drawn += f"<figure>{_image(image)}<figcaption>input</figcaption></figure>"
    return f'<div class="images">{drawn}</div>\n{_rows(body.ranked.rows[:10], greatest)}'


def _cells(values: Array) -> str:
    scale = float(abs(values).max(initial=0.0))
    rows, columns = values.shape
    numbered = max(rows, columns) <= NUMBERED
    shapes = []
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            name, said = (
                level(colours.level(float(value), scale)),
                words.signed(float(value), scale),
            )
            shapes.append(
                f'<rect class="{name}" x="{x}" y="{y}" width="1" height="1">'
                f"<title>[{y}, {x}] {said}</title></rect>"
            )
            if numbered:
                short = words.short(float(value), scale)
                shapes.append(f'<text class="{name}" x="{x}.5" y="{y}.6">{short}</text>')
    return (
        f'<svg class="grid" viewBox="0 0 {columns} {rows}" shape-rendering="crispEdges" role="img" '
        f'aria-label="attributions">{"".join(shapes)}</svg>'
    )


def _image(image: Array) -> str:
    """Neighbours of one colour on a row are one rectangle."""
    shapes = []
    for y, row in enumerate(image):
        names = [colours.hexadecimal(*(round(float(part)) for part in pixel)) for pixel in row]
        start = 0
        for x in range(1, len(names) + 1):
            if x == len(names) or names[x] != names[start]:
                shapes.append(
                    f'<rect x="{start}" y="{y}" width="{x - start}" height="1" '
                    f'fill="{names[start]}"/>'
                )
                start = x
    return (
        f'<svg viewBox="0 0 {image.shape[1]} {image.shape[0]}" shape-rendering="crispEdges" '
        f'role="img" aria-label="input">{"".join(shapes)}</svg>'
    )


def _notes(notes: list[str]) -> str:
    return "".join(f'<p class="faint">{_text(note)}</p>\n' for note in notes)


def _footer(explanation: Explanation) -> str:
    facts = "".join(
        f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>\n"
        for name, value in words.facts(explanation)
    )
    notes = "".join(f"<li>{_text(note)}</li>\n" for note in words.notes(explanation))
    return f"<footer>\n<dl>\n{facts}</dl>\n{f'<ul>{notes}</ul>' if notes else ''}</footer>\n"

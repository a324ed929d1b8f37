"""An explanation as text for a terminal, in colour or without."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from openmaas.explaining.explanation import Explanation, Feature, Piece
from openmaas.explaining.rendering import colours, words
from openmaas.explaining.rendering.layout import Coloured, Heat, Ranked, Section, arrange
from openmaas.explaining.rendering.pixels import Array, blocks, summed

SECTIONS = 5
RANKED = 10  # pieces and places; of columns twice as many
_NARROW = 20
_CELL = 2  # columns of a heat map's cell: a sign and a digit, about as wide as it is tall


def terminal(
    explanation: Explanation, given: Any, *, width: int = 80, colour: bool = True, dark: bool = True
) -> str:
    """
    Args:
        given: the explained input.
        width: columns of the terminal.
        colour: escape sequences of ANSI; without them signs and numbers say the same.
        dark: the terminal's background is.

    Raises:
        EngineFailed: the attributions have no shape that an explanation can have.
    """
    page = arrange(explanation, given, SECTIONS)
    file = io.StringIO()
    console = Console(
        file=file,
        width=max(_NARROW, width),
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        no_color=not colour,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={},
    )
    drawn = _Drawn(explanation, console.width, colour, dark)
    for section in page.sections:
        for part in drawn.section(section):
            console.print(part)
        console.print()
    for note in page.left_out:
        console.print(Text(f"({note})"))
    for part in drawn.footer():
        console.print(part)
    lines = (line.rstrip() for line in file.getvalue().splitlines())
    return "\n".join(lines).rstrip("\n") + "\n"


class _Drawn:
    """The parts of a page, for one width and one look."""

    def __init__(self, explanation: Explanation, width: int, colour: bool, dark: bool) -> None:
        self._explanation = explanation
        self._width = width
        self._colour = colour
        self._dark = dark

    def section(self, section: Section) -> Iterator[RenderableType]:
        one = section.attribution
        title = Text(section.title or "answer", style="bold")
        outputs = f"{words.plain(one.instanceOutputValue)}"
        if one.baselineOutputValue is not None:
            outputs += f", from a baseline of {words.plain(one.baselineOutputValue)}"
        yield title.append(f"  {outputs}", style="not bold")
        yield self._legend(section.greatest)
        for part in section.parts:
            if part.name:
                yield Text(f"\n{part.name}", style="underline")
            body = part.body
            if isinstance(body, Coloured):
                yield from self._text(body, section.greatest)
            elif isinstance(body, Heat):
                yield from self._heat(body, section.greatest)
            else:
                yield self._bars(body, section.greatest)
        for note in section.left_out:
            yield Text(f"({note})")

    def footer(self) -> Iterator[RenderableType]:
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column(overflow="fold")
        for name, value in words.facts(self._explanation):
            facts.add_row(name, Text(value))
        yield facts
        for note in words.notes(self._explanation):
            yield Text(f"• {note}")

    def _style(self, step: int) -> Style:
        if not step:
            return Style()
        behind = colours.background(step, self._dark)
        return Style(color=colours.ink(behind), bgcolor=behind)

    def _legend(self, greatest: float) -> Text:
        toward, against = words.sides(self._explanation)
        low, high = words.signed(-greatest, greatest), words.signed(greatest, greatest)
        if self._explanation.method == "surprise":
            return Text(f"{high} {toward}")
        if not self._colour or self._width < 60:
            return Text(f"{high} {toward}, {low} {against}")
        legend = Text(f"{against} {low} ")
        for step in range(-colours.LEVELS, colours.LEVELS + 1, 2):
            legend.append("  ", style=self._style(step))
        return legend.append(f" {high} {toward}")

    def _text(self, body: Coloured, greatest: float) -> Iterator[RenderableType]:
        yield Text()
        for passage in body.passages:
            text = Text(overflow="fold")
            if passage.role:
                text.append(f"{passage.role}: ", style="bold")
            for span in passage.spans:
                share = span.piece.attribution if span.piece else 0.0
                text.append(span.text, style=self._style(colours.level(share, greatest)))
            yield text
        if body.ranked:
            yield Text()
            yield self._rows(body.ranked[:RANKED], greatest)

    def _bars(self, body: Ranked, greatest: float) -> Table:
        rows = list(body.rows)
        if body.others:
            rows.append(Feature(name=f"{body.others} others", value="", attribution=body.rest))
        return self._rows(rows, greatest)

    def _rows(self, rows: list[Any], greatest: float) -> Table:
        """Signed numbers, bars on both sides of a line, and what they are of."""
        bars = [Feature(name="", value=None, attribution=one.attribution) for one in rows]
        reach, both = words.reach(bars)  # whiskers are not drawn
        numbers = [words.signed(one.attribution, greatest) for one in rows]
        spreads = [words.interval(one.low, one.high, greatest) for one in rows]
        if self._width < 60 or not any(spreads):
            spreads = []
        half = max(3, min(12, (self._width - 40) // 4))
        left, right = (half, half) if both else (0, 2 * half)
        table = Table.grid(padding=(0, 1))
        _column(table, numbers, justify="right")
        table.add_column(no_wrap=True, width=2 * half + 1)
        taken = _widest(numbers) + _widest(spreads) + 2 * half + 1 + 3
        names = [self._name(one, max(8, self._width - taken)) for one in rows]
        _column(table, [name.plain for name in names], justify="left")
        if spreads:
            _column(table, spreads, justify="right")
        for at, one in enumerate(rows):
            cells = [Text(numbers[at]), self._bar(one.attribution, reach, left, right), names[at]]
            table.add_row(*cells, *([Text(spreads[at], style="dim")] if spreads else []))
        return table

    def _bar(self, value: float, reach: float, left: int, right: int) -> Text:
        filled = abs(value) / reach * (right if value > 0 else left) if reach else 0.0
        halves = round(filled * 2)
        full, more = divmod(halves, 2)
        colour = colours.background(colours.LEVELS if value > 0 else -colours.LEVELS, self._dark)
        style = Style(color=colour) if self._colour else Style()
        if value > 0:
            bar = "█" * full + "▌" * more
            return Text(" " * left + "│").append(bar, style=style)
        bar = "▐" * more + "█" * full
        return Text(" " * (left - len(bar))).append(bar, style=style).append("│", style=Style())

    def _name(self, one: Piece | Feature, room: int) -> Text:
        if isinstance(one, Piece):
            where = "" if one.message is None else f"message {one.message + 1}: "
            said = f" (logprob {words.plain(one.logprob)})" if one.logprob is not None else ""
            name = Text(where + words.label(one))
        else:
            said = "" if one.value in (None, "") else f" = {words.value(one.value)}"
            name = Text(words.line(one.name))
        spare = max(room - cell_len(said), min(name.cell_len, room // 2))  # names tell more
        name.truncate(spare, overflow="ellipsis")
        name.append(said)
        name.truncate(room, overflow="ellipsis")
        return name

    def _heat(self, body: Heat, greatest: float) -> Iterator[RenderableType]:
        rows, columns = body.values.shape
        fine = self._colour and columns * _CELL > self._width
        most = self._width if fine else self._width // _CELL
        side = blocks((rows, columns), 64, min(64, most))
        cells = summed(body.values, side)
        scale = float(abs(cells).max(initial=0.0))
        yield Text()
        yield from self._halves(cells, scale) if fine else self._digits(cells, scale)
        said = "a digit is tenths of the greatest" if not fine else f"{rows} × {columns} values"
        if side > 1:
            said += f"; a cell is {side} × {side} values added up"
        yield Text(f"({said}; rows and columns count from 0)", style="dim")
        ranked = Ranked(body.ranked.rows[:RANKED], 0, 0.0)
        yield self._bars(ranked, greatest)

    def _digits(self, cells: Array, scale: float) -> Iterator[Text]:
        """A sign and a digit on each cell, so that it is read without colour too."""
        for row in cells:
            line = Text(no_wrap=True)
            for value in row:
                step = colours.level(float(value), scale)
                digit = f"{'+' if step > 0 else '−'}{min(9, abs(step))}" if step else " ·"
                line.append(digit, style=self._style(step))
            yield line

    def _halves(self, cells: Array, scale: float) -> Iterator[Text]:
        """Two rows on a line."""
        for at in range(0, len(cells), 2):
            line = Text(no_wrap=True)
            for column in range(cells.shape[1]):
                pair = [
                    colours.background(colours.level(float(row[column]), scale), self._dark)
                    for row in cells[at : at + 2]
                ]
                behind = pair[1] if len(pair) == 2 else None
                line.append("▀", style=Style(color=pair[0], bgcolor=behind))
            yield line


def _widest(texts: list[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _column(table: Table, texts: list[str], justify: Literal["left", "right"]) -> None:
    table.add_column(justify=justify, no_wrap=True, width=_widest(texts))

"""A page that grows downwards, of rectangles, words and rasters; painting it comes later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from openmaas.explaining.rendering import colours
from openmaas.explaining.rendering.passages import Span
from openmaas.explaining.rendering.pixels import Array
from openmaas.explaining.rendering.wrapping import Chunk, wrap

WIDTH = 1200  # pixels
MARGIN = 40
INSIDE = WIDTH - 2 * MARGIN
TEXT, SMALL, TITLE = 18.0, 15.0, 24.0  # sizes of letters, in pixels
Align = Literal["left", "center", "right"]
Gauge = Callable[[str, float, bool], float]
"""How wide a text of a size is, bold or not, in pixels."""


class Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    colour: str


class Words(NamedTuple):
    x: float
    y: float  # of the base line
    text: str
    size: float
    bold: bool
    colour: str
    align: Align


class Raster(NamedTuple):
    box: Box
    image: Array  # rows × columns × red, green and blue, 0 to 255


class Sheet:
    """Places from the upper left; ``y`` is where it goes on."""

    def __init__(self, gauge: Gauge, dark: bool) -> None:
        self.gauge = gauge
        self.dark = dark
        self.look = colours.look(dark)
        self.y = 0.0
        self.boxes: list[Box] = []
        self.words: list[Words] = []
        self.rasters: list[Raster] = []

    def scratch(self) -> Sheet:
        return Sheet(self.gauge, self.dark)

    def add(self, other: Sheet) -> None:
        """Puts another page below."""
        self.boxes += [box._replace(y=box.y + self.y) for box in other.boxes]
        self.words += [one._replace(y=one.y + self.y) for one in other.words]
        self.rasters += [
            Raster(one.box._replace(y=one.box.y + self.y), one.image) for one in other.rasters
        ]
        self.y += other.y

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.boxes.append(Box(x, y, width, height, colour))

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        for left, top, wide, tall in (
            (x, y, width, 1), (x, y + height - 1, width, 1),
            (x, y, 1, height), (x + width - 1, y, 1, height),
        ):  # fmt: skip
            self.box(left, top, wide, tall, self.look.line)

    def write(
        self,
        x: float,
        y: float,
        text: str,
        colour: str,
        *,
        size: float = TEXT,
        bold: bool = False,
        align: Align = "left",
    ) -> None:
        if text.strip():
            self.words.append(Words(x, y, text, size, bold, colour, align))

    def fitted(self, text: str, width: float, size: float = TEXT, bold: bool = False) -> str:
        """A text with its end cut off, where it is wider."""
        if self.gauge(text, size, bold) <= width:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self.gauge(text[:middle] + "…", size, bold) <= width:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip() + "…"

    def paragraph(
        self, text: str, colour: str, *, size: float = TEXT, bold: bool = False, most: int = 4
    ) -> None:
        """Words over the width of the page, and the place below them."""
        lines = wrap([Span(text, None)], INSIDE, lambda part: self.gauge(part, size, bold))
        for at, line in enumerate(lines[:most]):
            self.y += size * 1.5
            cut = " …" if at == most - 1 and len(lines) > most else ""
            for chunk in line:
                words = self.fitted(chunk.text + cut, INSIDE, size, bold) if cut else chunk.text
                self.write(MARGIN + chunk.x, self.y, words, colour, size=size, bold=bold)
        self.y += size * 0.4

    def lines(self, spans: list[Span], indent: float) -> list[list[Chunk]]:
        return wrap(spans, INSIDE - indent, lambda part: self.gauge(part, TEXT, False))

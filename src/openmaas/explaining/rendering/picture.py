"""An explanation as a PNG, drawn by matplotlib in a process of its own.

``python -m openmaas.explaining.rendering.picture`` reads a ``Job`` as JSON from standard input
and writes the PNG to standard output. It ends with 3 where matplotlib is not installed, and with
4 and a reason on standard error where the job cannot be drawn.
"""

from __future__ import annotations

import io
import logging
import resource
import sys
import warnings
from functools import lru_cache
from typing import Any

import msgspec

from openmaas.errors import EngineFailed
from openmaas.explaining.explanation import Explanation
from openmaas.explaining.rendering.composing import compose
from openmaas.explaining.rendering.sheet import WIDTH, Sheet

NOT_INSTALLED, NOT_DRAWN = 3, 4
MEMORY = 2 << 30  # bytes of address space: what is too large breaks this process alone
_DPI = 100
_POINTS = 72 / _DPI  # of a pixel
# The first ones that are installed lend what DejaVu Sans lacks.
_LENDERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP",
    "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "IPAGothic", "Unifont", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil",
    "Noto Sans Thai", "Noto Sans Hebrew", "Noto Sans Armenian", "Noto Sans Georgian",
    "Noto Emoji", "Symbola", "FreeSans",
)  # fmt: skip


class Job(msgspec.Struct, frozen=True, kw_only=True):
    explanation: Explanation
    input: Any
    dark: bool = False


def picture(job: Job) -> bytes:
    """
    Returns:
        A PNG, 1200 pixels wide and at most 4000 high.

    Raises:
        EngineFailed: the attributions have no shape that an explanation can have.
        ModuleNotFoundError: there is no matplotlib.
    """
    import matplotlib

    matplotlib.use("agg")
    fonts = _Fonts()
    sheet = compose(job.explanation, job.input, job.dark, fonts.gauge, [])
    if fonts.lack(sheet):
        note = "some characters have no glyph here; the HTML shows them"
        sheet = compose(job.explanation, job.input, job.dark, fonts.gauge, [note])
    return _painted(sheet, fonts)


class _Fonts:
    """DejaVu Sans, which comes with matplotlib, and those that are installed beside it."""

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import RendererAgg
        from matplotlib.font_manager import fontManager

        installed = set(fontManager.get_font_names())
        self.families = ["DejaVu Sans", *(name for name in _LENDERS if name in installed)]
        renderer: Any = RendererAgg
        self._renderer = renderer(1, 1, _DPI)
        self.gauge = lru_cache(maxsize=50_000)(self._gauge)

    def properties(self, size: float, bold: bool) -> Any:
        from matplotlib.font_manager import FontProperties

        weight = "bold" if bold else "normal"
        return FontProperties(family=self.families, size=size * _POINTS, weight=weight)

    def _gauge(self, text: str, size: float, bold: bool) -> float:
        found = self._renderer.get_text_width_height_descent(
            text, self.properties(size, bold), False
        )
        return float(found[0])

    def lack(self, sheet: Sheet) -> bool:
        """Whether a character of it would be an empty box."""
        from matplotlib.font_manager import FontProperties, findfont, get_font

        known: set[int] = set()
        for family in self.families:
            known |= get_font(findfont(FontProperties(family=family))).get_charmap().keys()
        written = {character for one in sheet.words for character in one.text}
        return any(ord(one) not in known and not one.isspace() for one in written)


def _painted(sheet: Sheet, fonts: _Fonts) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    height = max(1, round(sheet.y))
    figure: Any = Figure(figsize=(WIDTH / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    figure.set_facecolor(sheet.look.page)
    axes = figure.add_axes((0, 0, 1, 1))
    for raster in sheet.rasters:
        x, y, wide, tall, _ = raster.box
        image = raster.image.round().astype("uint8")
        axes.imshow(
            image, extent=(x, x + wide, y + tall, y), interpolation="nearest", aspect="auto"
        )
    corners = [
        ((x, y), (x + wide, y), (x + wide, y + tall), (x, y + tall))
        for x, y, wide, tall, _ in sheet.boxes
    ]
    faces = [box.colour for box in sheet.boxes]
    # Edges that are smoothed would leave light seams between neighbours.
    axes.add_collection(
        PolyCollection(corners, facecolors=faces, linewidths=0, antialiaseds=False, zorder=2)
    )
    for one in sheet.words:
        axes.text(
            one.x,
            one.y,
            one.text,
            color=one.colour,
            fontproperties=fonts.properties(one.size, one.bold),
            ha=one.align,
            va="baseline",
            parse_math=False,  # a dollar is a dollar
            zorder=3,
        )
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=sheet.look.page)
    return file.getvalue()


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")  # of glyphs that are missing, which the picture says
    logging.disable()  # fonts without a bold form
    try:
        job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
        drawn = picture(job)
    except ModuleNotFoundError:
        return NOT_INSTALLED
    except MemoryError:
        print("it takes too much memory", file=sys.stderr)
        return NOT_DRAWN
    except (msgspec.DecodeError, EngineFailed) as error:
        print(error, file=sys.stderr)
        return NOT_DRAWN
    sys.stdout.buffer.write(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())

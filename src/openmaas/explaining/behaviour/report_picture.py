"""What is said of a whole model as a picture: ``python -m`` this module.

A process of its own, as nothing that draws belongs in the gateway: JSON with ``report`` (a
``Report``) and ``dark`` on standard input → PNG on standard output; nothing where matplotlib is
not installed.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import msgspec

from openmaas.explaining.behaviour.calibration import Calibration
from openmaas.explaining.behaviour.confusion import Confusion
from openmaas.explaining.behaviour.importance import Importances
from openmaas.explaining.behaviour.neighbours import Neighbours
from openmaas.explaining.behaviour.report import Report

# Okabe and Ito (2008): told apart by those who see no red or green, on light and dark alike.
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#808080"
GROUNDS = {False: ("#ffffff", "#1a1a1a", "#d9d9d9"), True: ("#16181c", "#ececec", "#3a3f47")}
# The first has Latin, Greek and Cyrillic; of the others, what is there.
FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei"]
COLUMNS = 20  # bars of importance
LABELS = 30  # of a matrix, beyond which nobody reads it in a picture …
NUMBERED = 12  # … and beyond which its numbers are not written
CHARACTERS = 28  # of a name


class Asked(msgspec.Struct):
    report: Report
    dark: bool = False


def main() -> None:
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return
    warnings.simplefilter("ignore")  # a glyph that no font has is drawn as a box
    logging.disable()  # of fonts that are not there
    ground, ink, grid = GROUNDS[asked.dark]
    style: Any = {
        "font.size": 9, "font.family": FONTS, "axes.titlesize": 11, "axes.titleweight": "bold",
        "text.parse_math": False, "text.color": ink,
        "figure.facecolor": ground, "axes.facecolor": ground, "axes.edgecolor": ink,
        "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "grid.color": grid,
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.axisbelow": True, "grid.linewidth": 0.6,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure: Any = Figure(dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, asked.report, ink)
        figure.savefig(sys.stdout.buffer, format="png")


def draw(figure: Any, report: Report, ink: str) -> None:
    """All parts that a report has, two beside each other."""
    panels: list[tuple[Any, Any]] = []
    if report.importance is not None and report.importance.columns:
        panels.append((_importance, report.importance))
    if report.calibration is not None:
        panels.append((_calibration, report.calibration))
    if report.confusion is not None and report.confusion.matrix is not None:
        panels.append((_confusion, report.confusion))
    if report.neighbours is not None and report.neighbours.found:
        panels.append((_neighbours, report.neighbours))
    across = min(2, max(1, len(panels)))
    down = max(1, -(-len(panels) // 2))
    figure.set_size_inches(6.4 * across, 4.9 * down + 0.5)
    told = ", ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
    where = f"{report.dataset.name}, {report.dataset.split}"
    title = f"{_cut(report.model, 60)} version {report.version} on {_cut(where, 60)}"
    figure.suptitle(f"{title}\n{report.rows:,} rows  {told}", fontsize=12)
    for at, (panel, part) in enumerate(panels):
        panel(figure.add_subplot(down, across, at + 1), part, ink)
    if not panels:
        axes = figure.add_subplot(1, 1, 1)
        axes.axis("off")
        why = [f"{one.part}: {one.why}" for one in report.left_out] or ["nothing was asked for"]
        axes.text(0, 1, "\n".join(_wrapped(one) for one in why), va="top", wrap=True)


def _importance(axes: Any, part: Importances, ink: str) -> None:
    shown = part.columns[:COLUMNS]
    places = range(len(shown))
    axes.barh(
        places,
        [one.mean for one in shown],
        xerr=[one.deviation for one in shown],
        color=BLUE,
        error_kw={"ecolor": ORANGE, "elinewidth": 1.6, "capsize": 2.5},
    )
    axes.set_yticks(places, [_cut(one.column) for one in shown])
    axes.invert_yaxis()
    axes.axvline(0, color=ink, linewidth=0.8)
    axes.grid(axis="x")
    worse = "accuracy falls by" if part.metric == "accuracy" else "RMSE rises by"
    axes.set_xlabel(f"{worse} (from {part.baseline:.4g}), where the column is shuffled")
    more = len(part.columns) - len(shown)
    axes.set_title("Importance" + (f" (and {more} columns less important)" if more else ""))


def _calibration(axes: Any, part: Calibration, ink: str) -> None:
    width = part.bins[0].high - part.bins[0].low
    full = [one for one in part.bins if one.count]
    middle = [(one.low + one.high) / 2 for one in full]
    axes.bar(middle, [one.accuracy for one in full], width * 0.92, color=BLUE, label="accuracy")
    axes.plot(
        middle, [one.confidence for one in full], "o", color=ORANGE, markeredgecolor=ink,
        markersize=6, label="mean confidence",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1.2, label="as sure as right")
    for place, one in zip(middle, full, strict=True):
        top = max(one.accuracy or 0, one.confidence or 0)
        axes.text(place, top + 0.03, f"{one.count:,}", ha="center", fontsize=7.5, color=ink)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.12)
    axes.grid(axis="y")
    axes.set_xlabel("confidence (rows of each bin above it)")
    axes.set_ylabel("share that is right")
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    axes.set_title(
        f"Reliability: ECE {part.expected_calibration_error:.3f}, largest "
        f"{part.maximum_calibration_error:.3f}, Brier {part.brier_score:.3f}"
    )


def _confusion(axes: Any, part: Confusion, ink: str) -> None:
    assert part.matrix is not None
    count = len(part.labels)
    axes.set_title(f"Confusion: {part.mistaken:,} mistakes, macro-F1 {part.macro_f1:.3f}")
    if count > LABELS:
        axes.axis("off")
        axes.text(0.5, 0.5, f"{count} labels: the matrix is in the JSON", ha="center")
        return
    shares = [[cell / max(1, sum(row)) for cell in row] for row in part.matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 9 if count <= 6 else 7
    for at, row in enumerate(part.matrix):
        for to, cell in enumerate(row):
            if count <= NUMBERED:
                # By the cell's own colour, which is the same on light and dark ground.
                colour = "#ffffff" if shares[at][to] > 0.55 else "#08306b"
                axes.text(
                    to, at, f"{cell:,}", ha="center", va="center", color=colour, fontsize=size
                )
    names = [_cut(one, 16) for one in part.labels]
    turn = 0 if count <= 3 or max(map(len, names)) <= 3 else 40
    axes.set_xticks(range(count), names, rotation=turn, ha="right" if turn else "center")
    axes.set_yticks(range(count), names)
    if count > NUMBERED:
        axes.tick_params(labelsize=7)
    axes.set_xlabel("told (colour: share of the true label's rows)")
    axes.set_ylabel("true")


def _neighbours(axes: Any, part: Neighbours, ink: str) -> None:
    """The first input's, as there is room for one."""
    first = part.found[0]
    places = range(len(first.examples))
    same = [one.label == first.predicted for one in first.examples]
    axes.barh(
        places,
        [one.similarity for one in first.examples],
        color=[BLUE if one else ORANGE for one in same],
        hatch=["" if one else "//" for one in same],
        edgecolor=ink,
        linewidth=0.5,
    )
    axes.set_yticks(places, [f"{_cut(one.label, 14)}  row {one.row}" for one in first.examples])
    axes.invert_yaxis()
    axes.grid(axis="x")
    low = min(0.0, *(one.similarity for one in first.examples))
    axes.set_xlim(low, 1.02)
    what = "" if first.confidence is None else "; blue: the predicted label, hatched: another"
    axes.set_xlabel(f"cosine by {_cut(part.by, 40)}{what}")
    true = "" if first.true is None else f", true {_cut(first.true, 14)}"
    axes.set_title("Nearest training rows", pad=30)
    told = f"predicted {_cut(first.predicted, 14)}{true}\n{_cut(first.shown, 76)}"
    axes.text(0.5, 1.02, told, transform=axes.transAxes, fontsize=7.5, ha="center")


def _cut(text: str, most: int = CHARACTERS) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _wrapped(text: str, width: int = 80) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


if __name__ == "__main__":
    main()

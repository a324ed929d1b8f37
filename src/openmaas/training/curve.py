"""The learning curve as a picture: loss, and a metric beside it, over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openmaas.training import frameworks

Row = dict[str, float | None]

# Okabe and Ito (2008): told apart by those who see no red or green; markers and dashes help too.
TRAIN, VALIDATION, GRID = "#0072B2", "#D55E00", "#d9d9d9"
_NOT_METRICS = ("epoch", "seconds", "learning_rate", "loss")


def draw(history: Sequence[Row], path: Path, title: str, best: int | None = None) -> None:
    """
    Args:
        best: the epoch whose weights were kept.
    """
    matplotlib = frameworks.matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = ["loss", *_metric(history)]
    with matplotlib.rc_context({"font.size": 10, "axes.titlesize": 11}):
        figure: Any = Figure(figsize=(4.5 * len(names), 3.4), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title[:80], fontsize=11)
        for at, name in enumerate(names):
            _panel(figure.add_subplot(1, len(names), at + 1), history, name, best)
        figure.savefig(path, format="png")


def _metric(history: Sequence[Row]) -> list[str]:
    """The first metric beside the loss, if there is one."""
    first = history[0] if history else {}
    own = [name for name in first if name not in _NOT_METRICS and not name.startswith("val_")]
    return own[:1]


def _panel(axes: Any, history: Sequence[Row], name: str, best: int | None) -> None:
    epochs = [row["epoch"] for row in history]
    few = len(epochs) <= 40
    for key, label, colour, style, marker in (
        (name, "training", TRAIN, "-", "o"),
        (f"val_{name}", "validation", VALIDATION, "--", "s"),
    ):
        values = [row.get(key) for row in history]
        if any(value is not None for value in values):
            plain = [float("nan") if value is None else value for value in values]
            axes.plot(
                epochs,
                plain,
                style,
                color=colour,
                marker=marker if few else None,
                markersize=4,
                linewidth=1.6,
                label=label,
            )
    if best is not None:
        axes.axvline(best, color="#000000", linestyle=":", linewidth=1, label="kept")
    axes.set_xlabel("epoch")
    axes.set_ylabel(name.replace("_", " "))
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if few:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)

"""Medians of interleaved rounds and the tables that show them."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median


class Rounds:
    """Figures by contestant and case, one per round."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str], list[float]] = {}

    def add(self, who: str, case: str, figure: float) -> None:
        self._all.setdefault((who, case), []).append(figure)

    def median(self, who: str, case: str) -> float | None:
        figures = self._all.get((who, case))
        return median(figures) if figures else None

    def ratio(self, case: str, ours: str, theirs: str) -> float | None:
        """The median of the rounds' ratios: what slows a whole round cancels out."""
        mine, other = self._all.get((ours, case)), self._all.get((theirs, case))
        if not mine or not other:
            return None
        return median(a / b for a, b in zip(mine, other, strict=False))

    def spread(self, who: str, case: str) -> str:
        """``median (least-most)``."""
        figures = self._all.get((who, case))
        if not figures:
            return "-"
        return f"{number(median(figures))} ({number(min(figures))}-{number(max(figures))})"


def number(value: float | None) -> str:
    """Three digits that matter."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def ratio(value: float | None, target: float | None = None, *, most: bool = False) -> str:
    """A ratio, and beside it the bar that it is held to."""
    if value is None:
        return "-"
    if target is None:
        return f"{value:.2f}"
    met = value <= target if most else value >= target
    return f"{value:.2f} ({'meets' if met else 'MISSES'} {'≤' if most else '≥'} {target:g})"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; its first column is left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}")
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip())
    print(flush=True)


def machine() -> str:
    """The processor, its cores and how busy it is: figures mean little without."""
    model = platform.processor() or "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    load = os.getloadavg()[0]
    return f"{model}, {len(os.sched_getaffinity(0))} cores, load before {load:.1f}"

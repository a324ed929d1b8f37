"""What commands print with: legible on a terminal, in a pipe and in a log file alike."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from openmaas.errors import ConfigurationError

PUBLIC = ""  # as of ``schema``, which takes long to import

# A pipe has no width; the 80 columns that rich assumes would cut keys and paths.
_WIDE = 200
out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
err = Console(highlight=False, stderr=True, width=None if sys.stderr.isatty() else _WIDE)


def say(text: str, style: str = "") -> None:
    """A line as it is: no markup read from it, never wrapped."""
    out.print(Text(text, style=style), soft_wrap=True)


def fail(text: str) -> None:
    """What went wrong, on standard error."""
    err.print(Text("error: ", style="bold red").append(text, style="not bold"), soft_wrap=True)


def table(columns: list[str], rows: list[list[str]], *, right: tuple[str, ...] = ()) -> None:
    """Prints rows under their columns; those named in ``right`` are aligned there. What is first
    names the row, and is never cut: it is what other commands want."""
    grid = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    for place, column in enumerate(columns):
        numeric = column in right
        whole = numeric or place == 0
        grid.add_column(column, justify="right" if numeric else "left", no_wrap=whole)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    out.print(grid)


def size(count: float) -> str:
    """Bytes in the unit that keeps them short: 98 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def date(seconds: int | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def duration(text: str) -> int:
    """Seconds of 90s, 15m, 12h or 30d.

    Raises:
        ConfigurationError: it is no such time.
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not (number.isascii() and number.isdigit()) or len(number) > 9:
        raise ConfigurationError(f"{text!r} is no time; write 90s, 15m, 12h or 30d")
    return int(number) * units[unit]


def pairs(given: list[str], option: str) -> dict[str, Any]:
    """``name=value`` with values as JSON where they are, as text otherwise.

    Raises:
        ConfigurationError: one is no such pair.
    """
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{option} {pair!r}: write it as name=value")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


class Bars:
    """Progress of several things, one after the other: bars on a terminal, lines elsewhere."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._name = ""
        self._said = ""

    def begin(self, name: str) -> None:
        self._name, self._said = name, ""
        if err.is_terminal:
            self._task = self._progress.add_task(name, total=None, doing="")

    def __call__(self, done: int, total: int | None, doing: str) -> None:
        """Has the form of ``registry.fetching.Progress``."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total, doing=doing)
        elif doing != self._said:
            self._said = doing
            err.print(Text(f"{self._name}: {doing}"), soft_wrap=True)

    def end(self, words: str) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        err.print(
            Text("✓ ", style="green").append(f"{self._name}: {words}", style="default"),
            soft_wrap=True,
        )


@contextmanager
def bars() -> Iterator[Bars]:
    progress = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TextColumn("{task.fields[doing]}"),
        console=err,
        transient=True,
        disable=not err.is_terminal,  # or it ends with an empty line in pipes
    )
    with progress:
        yield Bars(progress)


@contextmanager
def counted(doing: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A bar of so many things, on a terminal; what it yields says that some more are done.

    Args:
        total: ``None`` shows nothing, for what is soon done.
    """
    progress = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=total is None or not err.is_terminal,
    )
    with progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.advance(task, done)

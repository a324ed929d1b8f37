"""How a job is shown: a live bar, its metrics, its confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from openmaas.cli.screen import err, out, say, table

if TYPE_CHECKING:
    from openmaas.client import Batch


class Bar:
    """A live bar on a terminal; a line an epoch elsewhere."""

    def __enter__(self) -> Callable[[dict[str, Any]], None]:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"), console=err, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("waiting", total=None, told="")
        if err.is_terminal:
            self._progress.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _tell(self, event: dict[str, Any]) -> None:
        kind, data = event["kind"], event["data"]
        if kind in ("progress", "epoch") and data.get("steps"):
            self._progress.update(
                self._task,
                description=f"epoch {min(data['epoch'] + 1, data['epochs'])}/{data['epochs']}",
                total=data["steps"],
                completed=data["step"],
                told=metrics(_running(data.get("metrics", {}))),
            )
        if kind == "epoch":
            say(f"epoch {data['epoch']}/{data['epochs']}  {metrics(data['metrics'])}", "dim")
        elif kind == "state":
            self._progress.update(self._task, description=data["state"])
            say(data["state"], "bold")
        elif kind == "message":
            say(data["text"], "yellow")


@contextmanager
def passes() -> Iterator[Callable[[int, int], None]]:
    """A live bar of what a model was asked, on a terminal; nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        TextColumn("asking"), BarColumn(bar_width=30), MofNCompleteColumn(), console=err,
        transient=True, disable=not err.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Lines:
    """A live bar of a batch's lines on a terminal; a line for each status elsewhere."""

    def __enter__(self) -> Callable[[Batch], None]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
            TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=None)
        self._said = ""
        self._progress.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _tell(self, batch: Batch) -> None:
        self._progress.update(
            self._task,
            description=batch.status.replace("_", " "),
            total=batch.total or None,
            completed=batch.completed + batch.failed,
        )
        if not err.is_terminal and batch.status != self._said:
            self._said = batch.status
            err.print(batch.status.replace("_", " "), soft_wrap=True)


def far(progress: dict[str, Any]) -> str:
    if not progress.get("epochs"):
        return ""
    return f"{progress.get('epoch', 0)}/{progress['epochs']}"


def chief(found: dict[str, float | None]) -> dict[str, float | None]:
    """The one that says the most: of held-out rows before others, a metric before the loss."""
    names = [name for name in found if name != "learning_rate"]
    names.sort(key=lambda name: (name.endswith("loss"), not name.startswith("val_")))
    return {name: found[name] for name in names[:1]}


def _running(found: dict[str, float | None]) -> dict[str, float | None]:
    """Those that change within an epoch; the line that ends it has all."""
    return {
        name: value
        for name, value in found.items()
        if name != "learning_rate" and not name.startswith("val_")
    }


def metrics(found: dict[str, float | None]) -> str:
    return "  ".join(
        f"{name} {'not a number' if value is None else f'{value:.4g}'}"
        for name, value in found.items()
    )


def show_confusion(confusion: dict[str, Any]) -> None:
    labels = confusion["labels"]
    if len(labels) > 20:
        say(f"(a confusion matrix of {len(labels)} labels: --json)")
        return
    out.print("\n[bold]Confusion[/] (rows: true, columns: told)\n")
    rows = [[label, *map(str, row)] for label, row in zip(labels, confusion["matrix"], strict=True)]
    table(["", *labels], rows, right=tuple(labels))

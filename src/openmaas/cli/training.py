"""``openmaas train`` and ``openmaas jobs …``."""

from __future__ import annotations

import json as json_
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openmaas.cli import remote
from openmaas.cli.remote import Url
from openmaas.cli.screen import date, err, out, pairs, say, table
from openmaas.errors import ConfigurationError, OpenMaaSError

if TYPE_CHECKING:
    pass

app = typer.Typer(help="Training jobs.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="As `openmaas jobs list` names it.")]


def register(root: typer.Typer, panel: str) -> None:
    root.command(epilog=TRAIN_EXAMPLES, rich_help_panel=panel)(train)
    root.add_typer(app, name="jobs", rich_help_panel=panel)


TRAIN_EXAMPLES = """[bold]Examples[/]

openmaas train topics --data news.csv --recipe text_embeddings --target topic --promote

openmaas train digits --data digits.npz --network digits.keras --epochs 20 --loss sparse_categorical_crossentropy

openmaas train mood --data ds_0123456789abcdef --recipe text_lstm --set units=64 --promote-if accuracy=0.9

Recipes: text_embeddings, text_lstm, text_gru, text_transformer, text_encoder, seq2seq_rnn,
seq2seq_transformer, tabular_mlp, image_cnn; docs/training.md has their parameters."""  # noqa: E501


def train(
    model: Annotated[str, typer.Argument(help="What to call it.")],
    data: Annotated[
        str, typer.Option(metavar="FILE|ID", help="A file, or a data set of the server.")
    ],
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="How to train.")] = None,
    network: Annotated[
        Path | None, typer.Option(help="A Keras network of your own instead: .keras or .json.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The column that is to be told.")] = None,
    inputs: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Columns, split by commas. [dim]\\[all][/]")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A recipe's parameter; repeatable."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="[dim]\\[the recipe's][/]")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, sgd, rmsprop …")] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    loss: Annotated[str | None, typer.Option(help="Of an own network.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Epochs without progress until it is stopped.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    backend: Annotated[str, typer.Option(help="jax, tensorflow or torch.")] = "jax",
    promote: Annotated[bool, typer.Option("--promote", help="Serve it at once.")] = False,
    promote_if: Annotated[
        str | None,
        typer.Option(metavar="METRIC=BOUND", help="Serve it if a metric is at least so much."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for it.")] = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Trains a model on the server from your data, and shows how it learns."""
    fit: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "loss": loss,
        "seed": seed,
        "backend": backend,
    }
    if optimizer is not None or learning_rate is not None:
        rate = {} if learning_rate is None else {"learning_rate": learning_rate}
        fit["optimizer"] = {"name": optimizer or "adam"} | rate
    if patience is not None:
        fit["callbacks"] = [{"name": "early_stopping", "patience": patience}]
    given = None
    if network is not None:
        given = network.read_text() if network.suffix == ".json" else str(network)
    with remote.client(url) as client, err.status("sending the data"):
        job = client.training.train(
            model,
            data,
            wait=False,
            recipe=recipe,
            network=given,
            target=target,
            inputs=None if inputs is None else [one.strip() for one in inputs.split(",")],
            parameters=pairs(set_ or [], "--set") or None,
            fit={name: value for name, value in fit.items() if value is not None},
            promote=_promotion(promote, promote_if),
        )
    say(f"{job.id} is queued")
    if detach:
        say(f"Follow it with: openmaas jobs watch {job.id}")
        return
    watch(job.id, url)


@app.command("list", epilog="[bold]Example[/]\n\nopenmaas jobs list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many, the newest.")] = 20,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Lists training jobs, the newest first."""
    with remote.client(url) as client:
        found = client.training.jobs(limit=limit)
    rows = [
        [one.id, one.model, one.spec.get("recipe") or "own network", one.state, _far(one.progress),
         _metrics(one.progress.get("metrics", {})), f"{one.seconds:.0f}", date(one.created)]
        for one in found
    ]  # fmt: skip
    columns = ["job", "model", "recipe", "state", "epochs", "metrics", "seconds", "created"]
    table(columns, rows, right=("seconds",))


@app.command(epilog="[bold]Example[/]\n\nopenmaas jobs show job_0123456789abcdef01234567")
def show(
    job: Id,
    curve: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the learning curve there, PNG.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Shows a job: its settings, how far it is, and how good the version is that came of it."""
    with remote.client(url) as client:
        one = client.training.job(job)
        if curve is not None:
            curve.write_bytes(one.curve())
        card = one.card() if one.version is not None else None
    if json:
        say(json_.dumps(one.told() | {"published": card}))
        return
    rows = [
        ["model", one.model if one.version is None else f"{one.model} version {one.version}"],
        ["state", one.state],
        ["data", one.spec["dataset"]],
        ["recipe", one.spec.get("recipe") or "own network"],
        ["epochs", _far(one.progress)],
        ["seconds", f"{one.seconds:.1f}"],
    ]
    if one.error:
        rows.append(["why", one.error["message"]])
    if card is not None:
        rows.append(["held out", _metrics(card["card"]["metrics"])])
        rows.append(["artifact", card["digest"]])
    for label, value in rows:
        say(f"{label:<10} {value}")
    if card is not None and card["card"].get("confusion"):
        _show_confusion(card["card"]["confusion"])


@app.command(epilog="[bold]Example[/]\n\nopenmaas jobs watch job_0123456789abcdef01234567")
def watch(job: Id, url: Url = remote.DEFAULT_URL) -> None:
    """Follows a job to its end: a bar with loss and metrics."""
    with remote.client(url) as client:
        one = client.training.job(job)
        with _bar() as tell:
            for event in one.events():
                tell(event)
        one.refresh()
        if one.state != "succeeded":
            why = one.error["message"] if one.error else f"it is {one.state}"
            raise OpenMaaSError(f"{one.id}: {why}")
        card = one.card()["card"]
    say(f"{one.model} version {one.version} is there", "green")
    say(f"held-out rows: {_metrics(card['metrics'])}")


def _act(job: str, action: str, url: str) -> None:
    with remote.client(url) as client:
        one = getattr(client.training.job(job), action)()
    say(f"{one.id} is {one.state}")


@app.command(epilog="[bold]Example[/]\n\nopenmaas jobs pause job_0123456789abcdef01234567")
def pause(job: Id, url: Url = remote.DEFAULT_URL) -> None:
    """Has a job write a checkpoint and compute nothing until it is resumed."""
    _act(job, "pause", url)


@app.command(epilog="[bold]Example[/]\n\nopenmaas jobs resume job_0123456789abcdef01234567")
def resume(job: Id, url: Url = remote.DEFAULT_URL) -> None:
    """Lets a paused job go on from its checkpoint."""
    _act(job, "resume", url)


@app.command(epilog="[bold]Example[/]\n\nopenmaas jobs cancel job_0123456789abcdef01234567")
def cancel(job: Id, url: Url = remote.DEFAULT_URL) -> None:
    """Ends a job; nothing comes of it."""
    _act(job, "cancel", url)


# --- what is shown ---------------------------------------------------------------------------


class _bar:  # noqa: N801  used as a context manager alone
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
                told=_metrics(data.get("metrics", {})),
            )
        if kind == "epoch":
            say(f"epoch {data['epoch']}/{data['epochs']}  {_metrics(data['metrics'])}", "dim")
        elif kind == "state":
            self._progress.update(self._task, description=data["state"])
            say(data["state"], "bold")
        elif kind == "message":
            say(data["text"], "yellow")


def _far(progress: dict[str, Any]) -> str:
    if not progress.get("epochs"):
        return ""
    return f"{progress.get('epoch', 0)}/{progress['epochs']}"


def _metrics(found: dict[str, float | None]) -> str:
    return "  ".join(
        f"{name} {'not a number' if value is None else f'{value:.4g}'}"
        for name, value in found.items()
    )


def _show_confusion(confusion: dict[str, Any]) -> None:
    labels = confusion["labels"]
    if len(labels) > 20:
        say(f"(a confusion matrix of {len(labels)} labels: --json)")
        return
    out.print("\n[bold]Confusion[/] (rows: true, columns: told)\n")
    rows = [[label, *map(str, row)] for label, row in zip(labels, confusion["matrix"], strict=True)]
    table(["", *labels], rows, right=tuple(labels))


def _promotion(at_once: bool, bound: str | None) -> bool | dict[str, Any]:
    if bound is None:
        return at_once
    name, _, value = bound.partition("=")
    try:
        return {"metric": name, "at_least": float(value)}
    except ValueError:
        raise ConfigurationError(f"--promote-if {bound!r}: write it as accuracy=0.9") from None

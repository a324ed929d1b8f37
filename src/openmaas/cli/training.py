"""``openmaas train`` and ``openmaas jobs …``."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openmaas.cli import remote
from openmaas.cli.progress import Bar, chief, far, metrics, show_confusion
from openmaas.cli.remote import Url
from openmaas.cli.screen import bars, date, pairs, say, table
from openmaas.errors import ConfigurationError, OpenMaaSError

if TYPE_CHECKING:
    from openmaas.client import Client, Dataset

app = typer.Typer(help="Training jobs.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="As `openmaas jobs list` names it.")]


def register(root: typer.Typer, panel: str) -> None:
    root.command(epilog=TRAIN_EXAMPLES, rich_help_panel=panel)(train)
    root.add_typer(app, name="jobs", rich_help_panel=panel)


TRAIN_EXAMPLES = """[bold]Examples[/]

openmaas train topics --data news.csv --recipe text_embeddings --target topic --promote

openmaas train digits --data digits.npz --network digits.keras --epochs 20 --loss sparse_categorical_crossentropy

openmaas train mood --data ds_0123456789abcdef --recipe text_lstm --set units=64 --promote-if accuracy=0.9

openmaas train topics --data news.csv --recipe text_encoder --target topic --epsilon 3 --delta 1e-5

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
    epsilon: Annotated[
        float | None, typer.Option(help="Train privately: ε at the most; delta too.")
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="Of private training: below 1 / rows.")
    ] = None,
    max_grad_norm: Annotated[
        float | None, typer.Option(help="Of private training: each row's gradient. [dim]\\[1][/]")
    ] = None,
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
    if (recipe is None) == (network is None):
        raise ConfigurationError("say either --recipe or --network")
    given = None if network is None else _network(network)
    with remote.client(url) as client:
        job = client.training.train(
            model,
            data if data.startswith("ds_") else _sent(client, data, target),
            wait=False,
            recipe=recipe,
            network=given,
            target=target,
            inputs=None if inputs is None else [one.strip() for one in inputs.split(",")],
            parameters=pairs(set_ or [], "--set") or None,
            fit={name: value for name, value in fit.items() if value is not None},
            promote=_promotion(promote, promote_if),
            privacy=_privacy(epsilon, delta, max_grad_norm),
        )
    say(f"{job.id} is queued")
    if detach:
        say(f"Follow it with: openmaas jobs watch {job.id}")
        return
    watch(job.id, url)


def _network(path: Path) -> str:
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    return path.read_text() if path.suffix == ".json" else str(path)


def _sent(client: Client, data: str, target: str | None) -> Dataset:
    path = Path(data)
    if not path.exists():
        raise ConfigurationError(f"there is no file or folder {path}")
    with bars() as bar:
        bar.begin(path.name)
        made = client.datasets.upload(
            path, target=target, tell=lambda done, total, doing: bar(done, total or None, doing)
        )
        bar.end(f"{made.rows:,} rows, {len(made.columns)} columns; data set {made.id}")
    return made


@app.command("list", epilog="[bold]Example[/]\n\nopenmaas jobs list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many, the newest.")] = 20,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Lists training jobs, the newest first."""
    with remote.client(url) as client:
        found = client.training.jobs(limit=limit)
    rows = [
        [one.id, one.model, one.spec.get("recipe") or "own network", one.state, far(one.progress),
         metrics(chief(one.progress.get("metrics", {}))), date(one.created)]
        for one in found
    ]  # fmt: skip
    table(["job", "model", "recipe", "state", "epochs", "metric", "created"], rows)


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
        say(json_.dumps(one.told | {"published": card}))
        return
    rows = [
        ["model", one.model if one.version is None else f"{one.model} version {one.version}"],
        ["state", one.state],
        ["data", one.spec["dataset"]],
        ["recipe", one.spec.get("recipe") or "own network"],
        ["epochs", far(one.progress)],
        ["seconds", f"{one.seconds:.1f}"],
    ]
    if one.error:
        rows.append(["why", one.error["message"]])
    if card is not None:
        rows.append(["held out", metrics(card["card"]["metrics"])])
        rows.append(["artifact", card["digest"]])
    promised = None if card is None else card["card"].get("privacy")
    if promised is not None:
        rows += _promise(promised)
    for label, value in rows:
        say(f"{label:<10} {value}")
    if card is not None and card["card"].get("confusion"):
        show_confusion(card["card"]["confusion"])


def _promise(told: dict[str, Any]) -> list[list[str]]:
    """What a private version promises, and what not."""
    rows = [
        ["privacy", f"ε = {told['epsilon']:.4g}, δ = {told['delta']:.3g}, by {told['accountant']}"],
        ["protects", told["unit"]],
        ["", told["unit_note"]],
        ["steps", f"{told['steps']:,} of {told['planned_steps']:,}, each takes a row with the "
                  f"probability {told['sampling_rate']:.4g} ({told['sampling']})"],
        ["noise", f"{told['noise']}, {told['noise_multiplier']:g} times the bound of a row's "
                  f"gradient, {told['max_grad_norm']:g}"],
    ]  # fmt: skip
    return rows + [["not" if not at else "", one] for at, one in enumerate(told["not_covered"])]


@app.command(epilog="[bold]Example[/]\n\nopenmaas jobs watch job_0123456789abcdef01234567")
def watch(job: Id, url: Url = remote.DEFAULT_URL) -> None:
    """Follows a job to its end: a bar with loss and metrics."""
    with remote.client(url) as client:
        one = client.training.job(job)
        with Bar() as tell:
            for event in one.events():
                tell(event)
        one.refresh()
        if one.state != "succeeded":
            why = one.error["message"] if one.error else f"it is {one.state}"
            raise OpenMaaSError(f"{one.id}: {why}")
        card = one.card()["card"]
    say(f"{one.model} version {one.version} is there", "green")
    say(f"held-out rows: {metrics(card['metrics'])}")


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


def _privacy(
    epsilon: float | None, delta: float | None, max_grad_norm: float | None
) -> dict[str, float] | None:
    if epsilon is None and delta is None and max_grad_norm is None:
        return None
    if epsilon is None or delta is None:
        raise ConfigurationError("private training has both --epsilon and --delta")
    bound = {} if max_grad_norm is None else {"max_grad_norm": max_grad_norm}
    return {"epsilon": epsilon, "delta": delta} | bound


def _promotion(at_once: bool, bound: str | None) -> bool | dict[str, Any]:
    if bound is None:
        return at_once
    name, _, value = bound.partition("=")
    try:
        return {"metric": name, "at_least": float(value)}
    except ValueError:
        raise ConfigurationError(f"--promote-if {bound!r}: write it as accuracy=0.9") from None

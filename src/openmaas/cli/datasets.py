"""``openmaas datasets …``."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openmaas.cli import remote
from openmaas.cli.remote import Url
from openmaas.cli.screen import bars, date, say, size, table
from openmaas.errors import ConfigurationError

if TYPE_CHECKING:
    from openmaas.client import Dataset

app = typer.Typer(help="Data to train on.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="As `openmaas datasets list` names it.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]

BAR = 20  # characters of the most frequent label
LABELS = 10  # of a column that are shown
BAD = 5  # bad rows that are shown


def register(root: typer.Typer, panel: str) -> None:
    root.add_typer(app, name="datasets", rich_help_panel=panel)


PUSH_EXAMPLES = """[bold]Examples[/]

openmaas datasets push reviews.csv --target sentiment

openmaas datasets push tickets.jsonl --skip-bad-rows 0.01 --split validation=0.1,test=0.1

openmaas datasets push ./photos --name pets --image-size 64x64

openmaas datasets push digits.npz --split fold

FILE is CSV, JSON Lines, Parquet, NPZ, or a folder (or ZIP) of images: class/file.png. What broke
off goes on where it did when the command is typed again."""


@app.command(epilog=PUSH_EXAMPLES)
def push(
    file: Annotated[Path, typer.Argument(help="A file, or a folder of images.")],
    name: Annotated[str | None, typer.Option(help="[dim]\\[the file's][/]")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="What is to be learned.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="csv, jsonl, parquet, npz or images. [dim]\\[its name's][/]"),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=KIND", help="number, category or text; repeatable."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTIONS|COLUMN",
            help="Of rows that are held out, or who says it. [dim]\\[validation=0.1,test=0.2][/]",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the split.")] = None,
    skip_bad_rows: Annotated[
        float | None,
        typer.Option(metavar="FRACTION", help="Leave bad rows out, if they are no more than that."),
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Of CSV: , ; or tab. [dim]\\[found out][/]")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Of all images, in pixels.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Of images: 1 or 3.")] = None,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Sends data to the server, which checks them and says what is in them."""
    if not file.exists():
        raise ConfigurationError(f"there is no file or folder {file}")
    options: dict[str, Any] = {
        "format": form,
        "target": target,
        "kinds": _kinds(kind or []) or None,
        "split": None if split is None else _split(split),
        "seed": seed,
        "bad_rows": None if skip_bad_rows is None else "skip",
        "max_bad_fraction": skip_bad_rows,
        "delimiter": "\t" if delimiter in ("tab", "\\t") else delimiter,
        "image_size": None if image_size is None else _size(image_size),
        "channels": channels,
    }
    with remote.client(url) as client, bars() as bar:
        bar.begin(name or file.name)
        made = client.datasets.upload(
            file,
            name=name,
            tell=lambda done, total, doing: bar(done, total or None, doing),
            **options,
        )
        bar.end(f"{made.rows:,} rows, {len(made.columns)} columns")
    _show(made)


@app.command("list", epilog="[bold]Example[/]\n\nopenmaas datasets list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many, the newest.")] = 20,
    json: Json = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Lists data sets, the newest first."""
    with remote.client(url) as client:
        found = client.datasets.list(limit=limit)
    if json:
        say(json_.dumps([one.told for one in found]))
        return
    rows = [
        [one.id, one.name, one.format, one.state, f"{one.rows:,}" if one.rows else "",
         one.target or "", size(one.told["bytes"]), date(one.told["created"])]
        for one in found
    ]  # fmt: skip
    columns = ["data set", "name", "format", "state", "rows", "target", "size", "created"]
    table(columns, rows, right=("rows", "size"))


@app.command(epilog="[bold]Example[/]\n\nopenmaas datasets show ds_0123456789abcdef01234567")
def show(
    dataset: Id,
    rows: Annotated[int, typer.Option(min=0, max=20, help="So many of the first ones too.")] = 0,
    json: Json = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Shows what is in a data set: columns, labels, splits, bad rows."""
    with remote.client(url) as client:
        found = client.datasets.get(dataset)
        preview = client.datasets.preview(dataset) if rows and found.state == "ready" else None
    if json:
        say(json_.dumps(found.told | ({} if preview is None else {"preview": preview})))
        return
    _show(found)
    for number, row in enumerate((preview or {"rows": []})["rows"][:rows], 1):
        say(f"\nrow {number}", "bold")
        for column, cell in zip(preview["columns"] if preview else [], row, strict=True):
            text = json_.dumps(cell, ensure_ascii=False)
            say(f"  {column}: {text if len(text) <= 200 else text[:199] + '…'}")


BUDGET_EXAMPLES = """[bold]Examples[/]

openmaas datasets budget ds_0123456789abcdef01234567 --epsilon 8 --delta 1e-5

openmaas datasets budget ds_0123456789abcdef01234567"""


@app.command(epilog=BUDGET_EXAMPLES)
def budget(
    dataset: Id,
    epsilon: Annotated[
        float | None, typer.Option(help="Give it this budget; delta too. [dim]\\[as it is][/]")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="[dim]\\[as it is][/]")] = None,
    json: Json = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Shows what private jobs and sessions have spent of a data set's budget, or sets it."""
    with remote.client(url) as client:
        found = client.datasets.budget(dataset)
        if epsilon is not None or delta is not None:
            now = found["budget"] or {}
            wanted = {"epsilon": epsilon, "delta": delta}
            wanted = {name: now.get(name) if one is None else one for name, one in wanted.items()}
            if None in wanted.values():
                raise ConfigurationError("say both --epsilon and --delta")
            found = client.datasets.budget(dataset, **wanted)
    if json:
        say(json_.dumps(found))
        return
    for label in ("budget", "spent", "held", "left"):
        amount = found[label]
        told = f"ε = {amount['epsilon']:.4g}, δ = {amount['delta']:.3g}" if amount else "none"
        say(f"{label:<8} {told}")
    if found["unprotected"]:
        say(f"{found['unprotected']} jobs or sessions learnt from it without privacy", "yellow")
    if found["spends"]:
        rows = [
            [one["id"], one["state"], f"{one['epsilon']:.4g}", f"{one['delta']:.3g}",
             "" if one["steps"] is None else f"{one['steps']:,}", date(one["created"])]
            for one in found["spends"]
        ]  # fmt: skip
        columns = ["job or session", "state", "epsilon", "delta", "steps", "created"]
        table(columns, rows, right=("epsilon", "delta", "steps"))


@app.command(epilog="[bold]Example[/]\n\nopenmaas datasets remove ds_0123456789abcdef01234567")
def remove(dataset: Id, url: Url = remote.DEFAULT_URL) -> None:
    """Removes a data set that no unfinished job learns from."""
    with remote.client(url) as client:
        client.datasets.delete(dataset)
    say(f"{dataset} is removed")


# --- what is shown -----------------------------------------------------------------------------


def _show(found: Dataset) -> None:
    about = found.description
    lines = [["data set", found.id], ["name", found.name], ["state", found.state]]
    if found.error is not None:
        lines.append(["why", found.error["message"]])
    if about:
        parts = ", ".join(f"{name} {rows:,}" for name, rows in found.splits.items())
        lines += [["rows", f"{found.rows:,} ({parts})"], ["target", found.target or "none"],
                  ["fingerprint", found.fingerprint or ""]]  # fmt: skip
    for label, value in lines:
        say(f"{label:<12} {value}")
    if not about:
        return
    if about["bad_rows"]:
        say(f"{'bad rows':<12} {about['bad_rows']:,} left out", "yellow")
        for row in about["bad"][:BAD]:
            say(f"{'':<12} line {row['line']}: {row['why']}", "dim")
    say("")
    table(
        ["column", "kind", "type", "missing", "distinct", "from", "to", "mean"],
        [_row(column) for column in found.columns],
        right=("missing", "distinct", "from", "to", "mean"),
    )
    for column in found.columns:
        if column["name"] == found.target and column.get("values"):
            _labels(column)


def _row(column: dict[str, Any]) -> list[str]:
    shape = column.get("shape") or []
    kind = column["dtype"] + (f" {shape}" if shape else "")
    numbers = [column.get(name) for name in ("minimum", "maximum", "mean")]
    return [
        column["name"],
        column["kind"],
        kind,
        f"{column.get('missing', 0):,}",
        "" if column.get("unique") is None else f"{column['unique']:,}",
        *("" if one is None else f"{one:.6g}" for one in numbers),
    ]


def _labels(column: dict[str, Any]) -> None:
    """How often each value is there, as bars."""
    values = column["values"]
    most, total = values[0]["rows"], sum(one["rows"] for one in values)
    shown = values[:LABELS]
    width = max(len(one["value"][:40]) for one in shown)
    say(f"\n{column['name']}", "bold")
    for one in shown:
        bar = "█" * max(1, round(BAR * one["rows"] / most))
        say(f"{one['value'][:40]:<{width}}  {one['rows']:>8,}  {one['rows'] / total:6.1%}  {bar}")
    if len(values) > LABELS:
        say(f"… and {len(values) - LABELS} more: --json")


# --- what is typed -----------------------------------------------------------------------------


def _kinds(given: list[str]) -> dict[str, str]:
    found = {}
    for pair in given:
        name, equals, kind = pair.rpartition("=")
        if not equals or not name:
            raise ConfigurationError(f"--kind {pair!r}: write it as COLUMN=category")
        found[name] = kind
    return found


def _split(text: str) -> dict[str, float] | str:
    if "=" not in text:
        return text
    try:
        pairs = [part.split("=", 1) for part in text.split(",")]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        raise ConfigurationError(
            f"--split {text!r}: write it as validation=0.1,test=0.2, or name a column"
        ) from None


def _size(text: str) -> list[int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ConfigurationError(f"--image-size {text!r}: write it as 64x64")
    return [int(height), int(width)]

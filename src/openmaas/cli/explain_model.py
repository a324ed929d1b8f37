"""``openmaas explain-model``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openmaas.cli import remote
from openmaas.cli.progress import metrics, passes, show_confusion
from openmaas.cli.remote import Url
from openmaas.cli.screen import out, say, table
from openmaas.errors import InvalidRequest

if TYPE_CHECKING:
    from openmaas.client import Client

Split = Literal["test", "validation", "train"]

EXAMPLES = """[bold]Examples[/]

openmaas explain-model diagnosis

openmaas explain-model diagnosis --part importance --repeats 20 --dry-run

openmaas explain-model topics@2 --dataset news --split validation --output report.html

openmaas explain-model topics --part neighbours --input "Rain until Friday." --k 10

By rows of a data set of yours, which none says is the one that the model was trained on. --output
takes .html, .png or .json."""

RENDERED = {".html": "html", ".png": "png", ".json": "json"}
BAR = 24  # characters of the largest importance
SHOWN = 70  # characters of a row that stands beside its label
COLUMNS = 30  # of importance, and …
MISTAKES = 10  # … mistakes, that are shown; --output report.json has all


def register(app: typer.Typer, panel: str) -> None:
    app.command("explain-model", epilog=EXAMPLES, rich_help_panel=panel)(explain_model)


def explain_model(
    model: Annotated[str, typer.Argument(help="Deployed; also NAME@VERSION or NAME@ALIAS.")],
    dataset: Annotated[
        str | None,
        typer.Option(metavar="ID|NAME", help="[dim]\\[what the model was trained on][/]"),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="importance, calibration, confusion or neighbours; repeatable. "
            "[dim]\\[those that are possible][/]",
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="Whose rows.")] = "test",
    target: Annotated[
        str | None, typer.Option(help="The column that is true. [dim]\\[as it was trained][/]")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="At the most.")] = 1000,
    repeats: Annotated[int, typer.Option(min=1, max=50, help="Of each shuffled column.")] = 5,
    bins: Annotated[int, typer.Option(help="Of the reliability diagram: 10 or 15.")] = 10,
    given: Annotated[
        str | None,
        typer.Option("--input", help="A text, or a row as JSON, whose neighbours are shown."),
    ] = None,
    k: Annotated[int, typer.Option(min=1, max=50, help="Neighbours.")] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only says what it costs.")] = False,
    dark: Annotated[bool, typer.Option("--dark", help="A picture on dark ground.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".html, .png or .json")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Says how a model behaves: what it needs, how sure it is, what it takes for what."""
    if output is not None and output.suffix not in RENDERED:
        raise InvalidRequest(f"--output ends in one of: {', '.join(RENDERED)}")
    if dark and (output is None or output.suffix != ".png"):
        raise InvalidRequest("--dark goes with an --output that ends in .png")
    how: dict[str, Any] = {
        "dataset": dataset, "parts": part or None, "split": split, "target": target, "rows": rows,
        "repeats": repeats, "bins": bins, "input": _input(given), "k": k, "seed": seed,
    }  # fmt: skip
    with remote.client(url) as client:
        if dry_run:
            _tell_cost(client.explain_model(model, dry_run=True, **how))
        elif output is not None and output.suffix == ".html":
            output.write_text(client.explain_model.page(model, **how), encoding="utf-8")
            say(f"wrote {output}")
        elif output is not None and output.suffix == ".png":
            output.write_bytes(client.explain_model.picture(model, dark=dark, **how))
            say(f"wrote {output}")
        else:
            _tell(_asked(client, model, how), output, as_json)


def _asked(client: Client, model: str, how: dict[str, Any]) -> dict[str, Any]:
    with passes() as tell:
        return client.explain_model(model, progress=tell, **how)


def _input(given: str | None) -> Any:
    """A row, where it is written as one."""
    if given is None or given.strip()[:1] not in ("{", "["):
        return given
    try:
        return json.loads(given)
    except ValueError:
        return given  # a text may begin so


def _tell_cost(found: dict[str, Any]) -> None:
    used = found["dataset"]
    say(f"{found['model']}@{found['version']} on {used['name']} ({used['id']}), {used['split']}")
    say(f"parts: {', '.join(found['parts']) or 'none'}")
    _left_out(found)
    say(f"up to {found['cost']['forward_passes']:,} forward passes")


def _tell(found: dict[str, Any], output: Path | None, as_json: bool) -> None:
    if output is not None:
        output.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        say(f"wrote {output}")
        return
    if as_json:
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
        return
    used, cost = found["dataset"], found["cost"]
    say(f"{found['model']} version {found['version']}", "bold")
    say(
        f"{found['rows']:,} of {used['rows']:,} rows of {used['name']}, split {used['split']}; "
        f"{cost['forward_passes']:,} forward passes in {cost['seconds']:.1f} s",
        "dim",
    )
    if found["metrics"]:
        say(metrics(found["metrics"]))
    for name, show in (
        ("importance", _importance), ("calibration", _calibration), ("confusion", _confusion),
        ("neighbours", _neighbours),
    ):  # fmt: skip
        if found[name] is not None:
            show(found[name])
    _left_out(found)
    for note in found["notes"]:
        say(note, "yellow")


def _left_out(found: dict[str, Any]) -> None:
    for one in found["left_out"]:
        say(f"{one['part']} is left out: {one['why']}", "yellow")


def _importance(part: dict[str, Any]) -> None:
    worse = "accuracy falls by" if part["metric"] == "accuracy" else "RMSE rises by"
    out.print(f"\n[bold]Importance[/] (from {part['baseline']:.4g}, each column shuffled)\n")
    most = max([one["mean"] for one in part["columns"]] + [1e-12])
    rows = [
        [one["column"], f"{one['mean']:.4g}", f"± {one['deviation']:.2g}",
         "█" * round(BAR * max(0.0, one["mean"]) / most)]
        for one in part["columns"][:COLUMNS]
    ]  # fmt: skip
    table(["column", worse, "", " "], rows, right=(worse, ""))


def _calibration(part: dict[str, Any]) -> None:
    out.print("\n[bold]Reliability[/]\n")
    rows = [
        [f"{one['low']:.2f}–{one['high']:.2f}", f"{one['count']:,}", f"{one['confidence']:.3f}",
         f"{one['accuracy']:.3f}"]
        for one in part["bins"] if one["count"]
    ]  # fmt: skip
    table(["confidence", "rows", "mean", "right"], rows, right=("rows", "mean", "right"))
    say(
        f"expected calibration error {part['expected_calibration_error']:.4f}  "
        f"largest {part['maximum_calibration_error']:.4f}  Brier {part['brier_score']:.4f}"
    )


def _confusion(part: dict[str, Any]) -> None:
    if part["matrix"] is not None:
        show_confusion(part)
    if part["mistakes"]:
        out.print(f"\n[bold]The surest of {part['mistaken']:,} mistakes[/]\n")
        rows = [
            [str(one["row"]), one["true"], one["predicted"], f"{one['confidence']:.3f}",
             _cut(one["shown"])]
            for one in part["mistakes"][:MISTAKES]
        ]  # fmt: skip
        table(["row", "true", "told", "sure", "what"], rows, right=("row", "sure"))


def _neighbours(part: dict[str, Any]) -> None:
    out.print(f"\n[bold]Nearest training rows[/] by {part['by']}, of {part['searched']:,}")
    for one in part["found"]:
        true = "" if one["true"] is None else f", true {one['true']}"
        say(f"\n{_cut(one['shown'])}\npredicted {one['predicted']}{true}")
        rows = [
            [f"{near['similarity']:.3f}", near["label"], str(near["row"]), _cut(near["shown"])]
            for near in one["examples"]
        ]
        table(["cosine", "label", "row", "what"], rows, right=("cosine", "row"))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"

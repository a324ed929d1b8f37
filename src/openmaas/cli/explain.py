"""``openmaas explain``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openmaas.cli import predict, remote, texts
from openmaas.cli.progress import passes
from openmaas.cli.remote import Url
from openmaas.cli.screen import err, out, say
from openmaas.errors import InvalidRequest

if TYPE_CHECKING:
    from openmaas.client import Client

EXAMPLES = """[bold]Examples[/]

openmaas explain "The film was great, but the seats hurt."

openmaas explain --labels cinema,sport --unit sentence < review.txt

openmaas explain --model digits --row examples/digits.json --image 8x8 --output why.png

openmaas explain --model smollm2-135m --chat messages.json --answer "In Paris."

openmaas explain --method kernel_shap --budget 2000 --dry-run "How much would this cost?"

Words (or columns, pixels, sentences of a prompt) that speak for the answer are blue, those against
it orange. --output takes .html, .png, .json or .txt."""

WIDEST = 120  # columns
RENDERED = {".html": "html", ".png": "png", ".json": "json", ".txt": "terminal"}


def register(app: typer.Typer, panel: str) -> None:
    app.command(epilog=EXAMPLES, rich_help_panel=panel)(explain)


def explain(
    text: Annotated[str | None, typer.Argument(help="None: standard input.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="[dim]\\[the deployed one that classifies best][/]", metavar="NAME"),
    ] = None,
    row: Annotated[
        str | None, typer.Option(metavar="FILE", help="Of a network: as `predict` reads it.")
    ] = None,
    chat: Annotated[
        str | None, typer.Option(metavar="FILE", help="A conversation: JSON messages.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="Of a chat model. [dim]\\[what it answers now][/]")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="A label, or a number's place. [dim]\\[the likeliest][/]")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Split by commas, as `classify`.")] = None,
    method: Annotated[
        str | None, typer.Option(help="integrated_gradients, shapley, context_cite …")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="token, word, sentence, message, feature, superpixel")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="What stands where a part is taken away; JSON for rows.")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Passes through the model.")] = None,
    top: Annotated[int, typer.Option(help="So many labels.")] = 1,
    image: Annotated[
        str | None, typer.Option(metavar="HxW", help="Of a picture that lies flat in a row.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only says what it costs.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".html, .png, .json or .txt")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The explanation as JSON.")] = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Says which parts of an input an answer is due to."""
    given = _given(text, row, chat)
    how: dict[str, Any] = {
        "answer": answer, "method": method, "unit": unit, "budget": budget, "top_k": top,
        "seed": seed, "target": _number(target), "baseline": _json(baseline),
        "labels": None if labels is None else [one.strip() for one in labels.split(",")],
        "image": _sides(image),
    }  # fmt: skip
    if output is not None and output.suffix not in RENDERED:
        raise InvalidRequest(f"--output ends in one of: {', '.join(RENDERED)}")
    with remote.client(url) as client:
        if dry_run:
            _tell_cost(client.explain(given, model, dry_run=True, **how))
        elif output is not None and output.suffix in (".html", ".png"):
            output.write_bytes(_drawn(client, given, model, how, output.suffix))
            say(f"wrote {output}")
        else:
            _tell(_asked(client, given, model, how), given, how["image"], output, as_json)


def _asked(client: Client, given: Any, model: str | None, how: dict[str, Any]) -> dict[str, Any]:
    with passes() as tell:
        return client.explain(given, model, progress=tell, **how)


def _drawn(
    client: Client, given: Any, model: str | None, how: dict[str, Any], suffix: str
) -> bytes:
    if suffix == ".png":
        return client.explain.picture(given, model, **how)
    return client.explain.page(given, model, **how).encode()


def _tell(
    found: dict[str, Any], given: Any, image: Any, output: Path | None, as_json: bool
) -> None:
    import msgspec

    from openmaas.explaining.explanation import Explanation
    from openmaas.explaining.rendering.terminal import terminal
    from openmaas.explaining.rows import laid_out

    if as_json or (output is not None and output.suffix == ".json"):
        whole = json.dumps(found, ensure_ascii=False, indent=None if as_json else 2)
        say(whole) if output is None else output.write_text(whole + "\n", encoding="utf-8")
        return
    found.pop("usage", None)
    explanation = msgspec.convert(found, Explanation)
    colour = output is None and out.is_terminal and not out.no_color
    shown = terminal(
        explanation, laid_out(given, image), width=min(out.width, WIDEST), colour=colour
    )
    if output is None:
        sys.stdout.write(shown)
    else:
        output.write_text(shown, encoding="utf-8")


def _tell_cost(found: dict[str, Any]) -> None:
    cost = found["cost"]
    say(f"{found['model']}@{found['version']} by {found['method']}, of {found['unit']}s")
    say(f"up to {cost['forward_passes']} forward and {cost['backward_passes']} backward passes")


def _given(text: str | None, row: str | None, chat: str | None) -> Any:
    if sum(one is not None for one in (text, row, chat)) > 1:
        raise typer.BadParameter("give a text, --row or --chat, not several")
    if chat is not None:
        found = predict.read(chat)
        return found["messages"] if isinstance(found, dict) and "messages" in found else found
    if row is None:
        return texts.gather(None if text is None else [text], None, None, by_line=False)[0].text
    found = predict.read(row)
    if isinstance(found, dict):
        found = found.get("instances", found)
    if isinstance(found, list) and found and isinstance(found[0], list | dict):
        if len(found) > 1:
            err.print(f"the first of {len(found)} rows is explained", style="dim")
        found = found[0]
    return found


def _number(target: str | None) -> str | int | None:
    return int(target) if target is not None and target.isdecimal() else target


def _json(baseline: str | None) -> Any:
    if baseline is None or baseline[:1] not in '[{"':
        return baseline
    try:
        return json.loads(baseline)
    except ValueError as error:
        raise InvalidRequest(f"--baseline: {error}") from None


def _sides(image: str | None) -> list[int] | None:
    if image is None:
        return None
    height, _, width = image.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise InvalidRequest("--image is height x width, as in 28x28")
    return [int(height), int(width)]

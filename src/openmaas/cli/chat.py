"""``openmaas chat``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openmaas.cli import remote
from openmaas.cli.remote import Url
from openmaas.cli.screen import err, fail

if TYPE_CHECKING:
    from openmaas.client import Client

EXAMPLES = """[bold]Examples[/]

openmaas chat smollm2-135m "What is gravity?"

openmaas chat smollm2-135m < question.txt

openmaas chat smollm2-135m

Without a prompt it is a conversation: /new forgets it, /quit or Ctrl-D ends it."""


def register(app: typer.Typer, panel: str) -> None:
    app.command(epilog=EXAMPLES, rich_help_panel=panel)(chat)


def chat(
    model: Annotated[str, typer.Argument(help="As `openmaas status` names it.")],
    prompt: Annotated[str | None, typer.Argument(help="One question; none: a talk.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is to be.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 512,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 takes the likeliest word; none: the model's own, else 1."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same answer again.")] = None,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Talks to a language model; answers appear as they are made."""
    given = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    parameters = {name: value for name, value in given.items() if value is not None}
    turns = [{"role": "system", "content": system}] if system is not None else []
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
        if not prompt:
            raise typer.BadParameter("standard input is empty; give a prompt")
    with remote.client(url) as client:
        if prompt is None:
            _converse(client, model, turns, parameters)
        else:
            turns.append({"role": "user", "content": prompt})
            _answer(client, model, turns, parameters)


def _answer(
    client: Client, model: str, turns: list[dict[str, str]], parameters: dict[str, Any]
) -> str:
    """Prints an answer as it comes and returns it."""
    pieces = []
    for piece in client.stream(model, turns, **parameters):
        pieces.append(piece)
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return "".join(pieces)


def _converse(
    client: Client, model: str, turns: list[dict[str, str]], parameters: dict[str, Any]
) -> None:
    import readline  # noqa: F401  (arrow keys and history in input())

    opening = list(turns)
    err.print(f"Talking to {model}. /new forgets the talk, /quit ends it.", style="dim")
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            err.print()
            return
        if text == "/quit":
            return
        if text == "/new":
            turns = list(opening)
        elif text:
            turns = _turn(client, model, [*turns, {"role": "user", "content": text}], parameters)


def _turn(
    client: Client, model: str, turns: list[dict[str, str]], parameters: dict[str, Any]
) -> list[dict[str, str]]:
    """The talk after one more answer; as it was before the question, where that failed."""
    from openmaas.client import ClientError

    try:
        answer = _answer(client, model, turns, parameters)
    except KeyboardInterrupt:
        err.print("(stopped)", style="dim")
        return turns[:-1]
    except ClientError as error:
        fail(str(error))
        return turns[:-1]
    return [*turns, {"role": "assistant", "content": answer}]

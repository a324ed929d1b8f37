"""``openmaas batch …``."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openmaas.cli import remote
from openmaas.cli.progress import Lines
from openmaas.cli.remote import Url
from openmaas.cli.screen import date, err, say, table
from openmaas.errors import ConfigurationError, OpenMaaSError

if TYPE_CHECKING:
    from openmaas.client import Batch, Client

app = typer.Typer(help="Many requests in a file.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="As `openmaas batch list` names it.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Output = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where to write answers. [dim]\\[standard output][/]"),
]

ERRORS = 10  # of a file that is wrong, that are shown


def register(root: typer.Typer, panel: str) -> None:
    root.add_typer(app, name="batch", rich_help_panel=panel)


RUN_EXAMPLES = """[bold]Examples[/]

openmaas batch run questions.jsonl --endpoint /v1/chat/completions --output answers.jsonl

openmaas batch run texts.jsonl --endpoint /v1/embeddings | jq -c .response.body.data

openmaas batch run questions.jsonl --endpoint /v1/chat/completions --detach

Each line of FILE is a request as OpenAI's batches have it:

{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": …}}

Answers come in no order, failed ones last: match them by custom_id. The exit status is 1 if a line
failed. The batch goes on if this command is ended: `openmaas batch show` writes its answers."""


@app.command(epilog=RUN_EXAMPLES)
def run(
    file: Annotated[Path, typer.Argument(help="JSON Lines, a request a line.")],
    endpoint: Annotated[
        str, typer.Option(metavar="PATH", help="That all of them are for: /v1/chat/completions …")
    ],
    output: Output = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for it.")] = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Sends a file of requests, waits until all are answered, and writes the answers."""
    if not file.is_file():
        raise ConfigurationError(f"there is no file {file}")
    from openmaas.client import BatchFailed

    with remote.client(url) as client:
        made = client.batches.create(file, endpoint)
        err.print(f"{made.id} is there", style="dim", soft_wrap=True)
        if detach:
            say(made.id)
            return
        try:
            with Lines() as tell:
                done = client.batches.wait(made, tell)
        except BatchFailed as error:
            raise OpenMaaSError(_why(file, error.errors)) from None
        _write(client, done, output)
    _check(done)


@app.command("list", epilog="[bold]Example[/]\n\nopenmaas batch list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100, help="So many, the newest.")] = 20,
    json: Json = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Lists batches, the newest first."""
    with remote.client(url) as client:
        found = client.batches.list(limit=limit)
    if json:
        say(json_.dumps([one.told for one in found]))
        return
    rows = [
        [one.id, one.endpoint, one.status, f"{one.total:,}", f"{one.completed:,}",
         f"{one.failed:,}", date(one.created)]
        for one in found
    ]  # fmt: skip
    columns = ["batch", "endpoint", "status", "lines", "answered", "failed", "created"]
    table(columns, rows, right=("lines", "answered", "failed"))


SHOW_EXAMPLES = """[bold]Examples[/]

openmaas batch show batch_0123456789abcdef01234567

openmaas batch show batch_0123456789abcdef01234567 --output answers.jsonl"""


@app.command(epilog=SHOW_EXAMPLES)
def show(
    batch: Id,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the answers there.")
    ] = None,
    json: Json = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Shows how far a batch is, and why it failed."""
    with remote.client(url) as client:
        one = client.batches.get(batch)
        if output is not None:
            if not one.finished:
                raise OpenMaaSError(f"{one.id} is {one.status}; it has answers when it is finished")
            _write(client, one, output)
    if json:
        say(json_.dumps(one.told))
        return
    told = one.told
    rows = [
        ["endpoint", one.endpoint],
        ["status", one.status],
        ["lines", f"{one.total:,}: {one.completed:,} answered, {one.failed:,} failed"],
        ["model", told["model"] or "several, or none named"],
        ["created", date(one.created)],
        ["expires", date(told["expires_at"])],
        ["input", told["input_file_id"]],
        ["output", told["output_file_id"] or ""],
        ["errors", told["error_file_id"] or ""],
    ]
    if told["usage"] is not None:
        used = told["usage"]
        rows.append(["tokens", f"{used['input_tokens']:,} in, {used['output_tokens']:,} out"])
    for label, value in rows:
        if value:
            say(f"{label:<10} {value}")
    for error in one.errors[:ERRORS]:
        where = "" if error["line"] is None else f"line {error['line']}: "
        say(f"{'why':<10} {where}{error['message']}", "yellow")


@app.command(epilog="[bold]Example[/]\n\nopenmaas batch cancel batch_0123456789abcdef01234567")
def cancel(batch: Id, url: Url = remote.DEFAULT_URL) -> None:
    """Asks no more lines of a batch; what is answered is kept."""
    with remote.client(url) as client:
        one = client.batches.cancel(batch)
    say(f"{one.id} is {one.status}")


def _write(client: Client, batch: Batch, output: Path | None) -> None:
    opened = sys.stdout if output is None else output.open("w", encoding="utf-8")
    try:
        for result in client.batches.results(batch):
            opened.write(json_.dumps(result.told, ensure_ascii=False) + "\n")
    finally:
        if output is not None:
            opened.close()


def _check(done: Batch) -> None:
    told = f"{done.completed:,} of {done.total:,} lines are answered"
    if done.status != "completed" or done.failed:
        raise OpenMaaSError(f"{done.id} is {done.status}: {told}, {done.failed:,} failed")
    err.print(f"✓ {told}", style="green", soft_wrap=True)


def _why(file: Path, errors: object) -> str:
    assert isinstance(errors, list)
    first = errors[0]
    where = str(file) if first["line"] is None else f"{file}, line {first['line']}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {first['message']}{more}"

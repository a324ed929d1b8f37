"""Texts that a command is to work on: arguments, standard input, a file of lines or of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import typer

from openmaas.cli.screen import counted
from openmaas.errors import InvalidRequest

T = TypeVar("T")
BATCH_TEXTS = 64  # of one call
BATCH_CHARACTERS = 200_000
AT_ONCE = 2  # calls: the server works on one while the other travels
FIELD = "text"

Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="[TEXT]...", help="None: standard input.")
]
File = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="Of texts; .jsonl: an object a line."),
]
Field = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=f"Of each JSON line, the field with the text. [dim]\\[{FIELD}][/]"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="An object a line, with all scores.")]


class Item(NamedTuple):
    """A text, and the object that it came in, if it did."""

    text: str
    of: dict[str, Any] | None = None


def gather(
    arguments: list[str] | None, file: str | None, field: str | None, *, by_line: bool
) -> list[Item]:
    """Everything that was given, read and checked before any work is done.

    Args:
        by_line: a text without JSON is one a line, not one in all.

    Raises:
        InvalidRequest: nothing was given, or it cannot be read; it names the line.
    """
    if arguments:
        if file is not None:
            raise typer.BadParameter("give texts or a file, not both")
        return [Item(_filled(text, f"text {at}")) for at, text in enumerate(arguments, 1)]
    if file is None and sys.stdin.isatty():
        raise typer.BadParameter("give a text, a file (--file), or pipe one in")
    name = "standard input" if file in (None, "-") else str(file)
    text = _read(file)
    if field is not None or name.endswith(".jsonl"):
        return [
            _of_json(line, f"{name}, line {number}", field or FIELD)
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip()
        ]
    if by_line:
        items = [Item(line) for line in text.splitlines() if line.strip()]
        if not items:
            raise InvalidRequest(f"{name} is empty")
        return items
    return [Item(_filled(text, name))]


def _read(file: str | None) -> str:
    name = "standard input" if file in (None, "-") else str(file)
    try:
        raw = sys.stdin.buffer.read() if file in (None, "-") else Path(str(file)).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise InvalidRequest(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is not UTF-8: byte {error.start}") from None


def _of_json(line: str, where: str, field: str) -> Item:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise InvalidRequest(f"{where} is not JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get(field), str):
        raise InvalidRequest(f"{where} is no object with a text in {field!r}; see --field")
    return Item(_filled(found[field], where), found)


def _filled(text: str, where: str) -> str:
    if not text.strip():
        raise InvalidRequest(f"{where} is empty")
    return text


def worked(
    items: list[Item], work: Callable[[list[str]], list[T]], doing: str
) -> Iterator[tuple[Item, T]]:
    """Each item with its result, in order and as soon as it is there, under a progress bar if it
    takes more than one call."""
    parts = list(_batches(items))
    with counted(doing, len(items) if len(parts) > 1 else None) as advance:
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            running: list[tuple[list[Item], Future[list[T]]]] = []
            while parts or running:
                while parts and len(running) < AT_ONCE:
                    part = parts.pop(0)
                    running.append((part, pool.submit(work, [item.text for item in part])))
                part, future = running.pop(0)
                yield from zip(part, future.result(), strict=True)
                advance(len(part))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _batches(items: list[Item]) -> Iterator[list[Item]]:
    held: list[Item] = []
    size = 0
    for item in items:
        if held and (len(held) == BATCH_TEXTS or size + len(item.text) > BATCH_CHARACTERS):
            yield held
            held, size = [], 0
        held.append(item)
        size += len(item.text)
    if held:
        yield held

"""``openmaas classify``, ``sentiment``, ``entities``, ``summarize`` and ``translate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from openmaas.cli import remote, texts
from openmaas.cli.remote import Url
from openmaas.cli.screen import out, say
from openmaas.cli.texts import Arguments, AsJson, Field, File, Item

if TYPE_CHECKING:
    from openmaas.client import Classification, Entity

BAR = 20  # characters of a score of 1
COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")  # of labels
SHOWN = 70  # characters of a text that stands beside its label

Model = Annotated[
    str | None, typer.Option(help="[dim]\\[the deployed one that does it best][/]", metavar="NAME")
]


Length = Literal["short", "medium", "long"]
Style = Literal["paragraph", "bullets"]


def register(app: typer.Typer, panel: str) -> None:
    for command, examples in (
        (classify, CLASSIFY),
        (sentiment, SENTIMENT),
        (entities, ENTITIES),
        (summarize, SUMMARIZE),
        (translate, TRANSLATE),
    ):
        app.command(epilog=f"[bold]Examples[/]\n\n{examples}", rich_help_panel=panel)(command)


JSONL = """Each object of a .jsonl file comes back with the answer in it, in the same order and as
soon as it is there."""

CLASSIFY = f"""openmaas classify --labels sport,politics,cooking "The striker scored twice."

openmaas classify --labels urgent,invoice,praise --multi-label --file mails.jsonl --field body

cut -f2 tickets.tsv | openmaas classify --labels bug,question

Standard input and plain files hold a text a line. {JSONL}"""


def classify(
    text: Arguments = None,
    labels: Annotated[
        str | None, typer.Option(help="Split by commas. [dim]\\[the model's own][/]")
    ] = None,
    multi_label: Annotated[bool, typer.Option(help="Any number of labels fits a text.")] = False,
    file: File = None,
    field: Field = None,
    as_json: AsJson = False,
    model: Model = None,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Tells which of some labels a text has."""
    items = texts.gather(text, file, field, by_line=True)
    chosen = None if labels is None else [one.strip() for one in labels.split(",") if one.strip()]
    with remote.client(url) as client:

        def work(batch: list[str]) -> list[Classification]:
            more = {"model": model, "multi_label": multi_label or None}
            return client.classify(batch, chosen, **more)

        _tell_labels(items, work, as_json=as_json)


SENTIMENT = f"""openmaas sentiment "The crew was kind." "We waited for three hours!"

openmaas sentiment --file reviews.txt

openmaas sentiment --file reviews.jsonl --field comment > judged.jsonl

Standard input and plain files hold a text a line. {JSONL}"""


def sentiment(
    text: Arguments = None,
    file: File = None,
    field: Field = None,
    as_json: AsJson = False,
    model: Model = None,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Tells whether a text is negative, neutral or positive."""
    items = texts.gather(text, file, field, by_line=True)
    with remote.client(url) as client:
        _tell_labels(items, lambda batch: client.sentiment(batch, model=model), as_json=as_json)


ENTITIES = f"""openmaas entities "Ann Lee moved to 14 Park Road, Leeds LS1 4DY."

openmaas entities --json < letter.txt

openmaas entities --file mails.jsonl --field body > found.jsonl

Standard input and plain files hold one text. {JSONL}"""


def entities(
    text: Arguments = None,
    file: File = None,
    field: Field = None,
    as_json: AsJson = False,
    model: Model = None,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Finds the people, addresses and organisations of a text."""
    items = texts.gather(text, file, field, by_line=False)
    with remote.client(url) as client:
        for item, found in texts.worked(
            items, lambda batch: client.entities(batch, model=model), "reading"
        ):
            if as_json or item.of is not None:
                _json(item, {"entities": [vars(one) for one in found]})
            else:
                _marked(item.text, found)


SUMMARIZE = f"""openmaas summarize --file report.txt

openmaas summarize --length short --style bullets < notes.txt

openmaas summarize --model smollm2-135m --file report.txt

openmaas summarize --file articles.jsonl --field body > summaries.jsonl

Standard input and plain files hold one text. An embedding model takes the text's own most central
sentences; a chat model, if it is named, writes new ones. {JSONL}"""


def summarize(
    text: Arguments = None,
    length: Annotated[Length, typer.Option(help="1, 3 or 7 sentences.")] = "medium",
    style: Annotated[Style, typer.Option()] = "paragraph",
    language: Annotated[
        str | None, typer.Option(help="Of the summary, by a chat model. [dim]\\[the text's][/]")
    ] = None,
    file: File = None,
    field: Field = None,
    as_json: AsJson = False,
    model: Model = None,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Says what a text says, in fewer words."""
    items = texts.gather(text, file, field, by_line=False)
    given = {"model": model, "length": length, "style": style, "language": language}
    with remote.client(url) as client:
        if _alone(items, as_json):
            _stream(client.stream_summary(items[0].text, **given))
            return
        for item, summary in texts.worked(
            items, lambda batch: client.summarize(batch, **given), "summarizing"
        ):
            _tell_text(item, {"summary": summary}, summary + "\n", as_json=as_json)


TRANSLATE = f"""openmaas translate --to pt "The meeting is at 10:30."

openmaas translate --to en < carta.txt

openmaas translate --to de --model smollm2-135m "Good morning."

openmaas translate --from en --to pt --file strings.jsonl > strings.pt.jsonl

Standard input and plain files hold one text; its paragraphs, placeholders, links and numbers stay.
{JSONL}"""


def translate(
    target: Annotated[str, typer.Option("--to", metavar="CODE", help="ISO 639: pt, en …")],
    text: Arguments = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="CODE", help="[dim]\\[detected][/]")
    ] = None,
    file: File = None,
    field: Field = None,
    as_json: AsJson = False,
    model: Model = None,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Says a text in another language."""
    items = texts.gather(text, file, field, by_line=False)
    given = {"model": model, "source": source}
    with remote.client(url) as client:
        if _alone(items, as_json):
            _stream(client.stream_translation(items[0].text, target, **given))
            return
        for item, made in texts.worked(
            items, lambda batch: client.translate(batch, target, **given), "translating"
        ):
            answer = {"translation": made.text, "source": made.source, "score": made.score}
            _tell_text(item, answer, made.text, as_json=as_json)


# --- what comes back -------------------------------------------------------------------------


def _alone(items: list[Item], as_json: bool) -> bool:
    return len(items) == 1 and items[0].of is None and not as_json


def _stream(pieces: Iterator[str]) -> None:
    last = ""
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
        last = piece or last
    if not last.endswith("\n"):
        sys.stdout.write("\n")


def _tell_text(item: Item, answer: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json or item.of is not None:
        _json(item, answer)
    else:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()


def _tell_labels(
    items: list[Item], work: Callable[[list[str]], list[Classification]], *, as_json: bool
) -> None:
    """A line a text; for one text alone, a line a label with a bar."""
    for item, found in texts.worked(items, work, "classifying"):
        if as_json or item.of is not None:
            _json(item, {"label": found.label, "score": found.score, "scores": found.scores})
        elif len(items) == 1:
            width = max(map(len, found.scores))
            for label, score in found.scores.items():
                say(f"{label:<{width}}  {score:.3f}  {'█' * round(BAR * score)}".rstrip())
        else:
            width = max(map(len, found.scores))
            told = " ".join(item.text.split())
            cut = told if len(told) <= SHOWN else told[: SHOWN - 1] + "…"
            say(f"{found.label:<{width}}  {found.score:.3f}  {cut}")


def _marked(text: str, found: list[Entity]) -> None:
    """The text with what was found in colour, each with its label behind it."""
    whole, at = Text(), 0
    colours: dict[str, str] = {}
    for one in found:
        colour = colours.setdefault(one.label, COLOURS[len(colours) % len(COLOURS)])
        whole.append(text[at : one.start]).append(one.text, f"bold {colour}")
        whole.append(f" [{one.label}]", colour)
        at = one.end
    out.print(whole.append(text[at:].rstrip("\n")), soft_wrap=True)


def _json(item: Item, answer: dict[str, Any]) -> None:
    whole = ({"text": item.text} if item.of is None else item.of) | answer
    sys.stdout.write(json.dumps(whole, ensure_ascii=False) + "\n")
    sys.stdout.flush()

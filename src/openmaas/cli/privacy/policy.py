"""``openmaas privacy policy`` and ``redact``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from openmaas.cli import folder, remote, texts
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.remote import Url
from openmaas.cli.screen import say, table
from openmaas.cli.texts import Arguments, AsJson, File
from openmaas.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from openmaas.app import Store
    from openmaas.redaction.policy import RedactionPolicy
    from openmaas.tenancy.privacy import PrivacyPolicy

ALL, NONE = "all", "none"


def register(app: typer.Typer) -> None:
    app.command(epilog=POLICY)(policy)
    app.command(epilog=REDACT)(redact)


POLICY = """[bold]Examples[/]

openmaas privacy policy acme

openmaas privacy policy acme --redaction hide --kind email --kind phone --kind person

openmaas privacy policy acme --pattern order='ORD-[0-9]{8}' --words project=projects.txt

openmaas privacy policy acme --key key_0123456789ab --redaction block

openmaas privacy policy acme --retain-days 30 --withdraw"""


def policy(
    tenant: Annotated[str, typer.Argument(help="Whose.")],
    redaction: Annotated[
        Literal["off", "report", "hide", "block", "inherit"] | None,
        typer.Option(
            help="What is done about personal data; `inherit`, of a key: what its tenant's says."
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="That is looked for; repeatable; `all` for all."),
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=EXPR",
            help="What else is looked for; repeatable; LABEL= takes one away.",
        ),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=FILE", help="A word a line; repeatable; LABEL= takes a list away."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A model that finds names; `none` for none."),
    ] = None,
    conversation: Annotated[
        bool | None,
        typer.Option("--conversation/--no-conversation", help="Placeholders last as long as one."),
    ] = None,
    retain_days: Annotated[
        int | None,
        typer.Option(metavar="N", help="That requests and answers are kept; 0: they are not."),
    ] = None,
    withdraw: Annotated[
        bool | None,
        typer.Option(
            "--withdraw/--no-withdraw", help="Versions go with the data they were trained on."
        ),
    ] = None,
    dedicated: Annotated[
        bool | None,
        typer.Option("--dedicated/--no-dedicated", help="Replicas that serve nobody else."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="ID", help="A key whose redaction is meant instead.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Shows a tenant's policy of privacy, or changes what is given; a running server follows
    within a second."""
    changes: dict[str, Any] = {}
    for name, value in (("action", redaction), ("conversation", conversation)):
        if value is not None:
            changes[name] = value
    if kind is not None:
        changes["kinds"] = None if kind == [ALL] else tuple(kind)
    if model is not None:
        changes["model"] = None if model == NONE else model
    whole: dict[str, Any] = {"withdraw": withdraw, "dedicated": dedicated}
    if retain_days is not None:
        whole["retain_days"] = retain_days
    whole = {name: value for name, value in whole.items() if value is not None}
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    if key is not None:
        if whole:
            raise ConfigurationError("a key has redaction alone: leave the other options out")
        _key(store, tenant, key, changes, pattern, words)
        return
    before = store.tenants.get(tenant).privacy
    new = _changed(before.redaction, changes, pattern, words)
    if whole.get("retain_days") == 0:
        whole["retain_days"] = None
    wanted = msgspec.structs.replace(before, redaction=new, **whole)
    if wanted != before:
        from openmaas.tenancy.privacy import privacy, stored

        checked = privacy(stored(wanted))  # bounds of numbers too
        before = store.tenants.change(tenant, folder.me(), privacy=checked).privacy
    _show(before)


def _key(
    store: Store,
    tenant: str,
    key: str,
    changes: dict[str, Any],
    pattern: list[str] | None,
    words: list[str] | None,
) -> None:
    found = store.keys.get(key, tenant)
    if changes.get("action") == "inherit":
        if len(changes) > 1 or pattern or words:
            raise ConfigurationError("inherit stands alone: the tenant's policy holds as it is")
        found = store.keys.redact(key, folder.me(), None, tenant)
    elif changes or pattern or words:
        before = found.redaction or store.tenants.get(tenant).privacy.redaction
        new = _changed(before, changes, pattern, words)
        found = store.keys.redact(key, folder.me(), new, tenant)
    if found.redaction is None:
        say(f"{key} has what its tenant's policy says")
    else:
        table(["redaction", ""], _redaction_rows(found.redaction))


def _changed(
    before: RedactionPolicy,
    changes: dict[str, Any],
    pattern: list[str] | None,
    words: list[str] | None,
) -> RedactionPolicy:
    """
    Raises:
        ConfigurationError: an option that is not of its form, or a file that cannot be read.
        InvalidRequest: an unknown kind, a label that is none, an expression that is a danger.
    """
    from openmaas.redaction.finder import finder
    from openmaas.tenancy.privacy import redaction, stored

    if changes.get("action") == "inherit":
        raise ConfigurationError("inherit is for keys: name one with --key")
    values = stored(msgspec.structs.replace(before, **changes))
    patterns, lists = dict(before.patterns), dict(before.words)
    for label, expression in _pairs(pattern):
        patterns.pop(label, None)
        if expression:
            patterns[label] = expression
    for label, file in _pairs(words):
        lists.pop(label, None)
        if file:
            lists[label] = _words(Path(file))
    new = redaction(values | {"patterns": patterns, "words": lists})
    finder(new)  # refuses expressions that are a danger
    return new


def _pairs(given: list[str] | None) -> list[tuple[str, str]]:
    pairs = []
    for one in given or ():
        label, equals, value = one.partition("=")
        if not equals or not label:
            raise ConfigurationError(f"{one!r}: write it as label=value")
        pairs.append((label, value))
    return pairs


def _words(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the words in {file}: {error}") from None
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise InvalidRequest(f"{file} has no words", param="words")
    return found


def _show(one: PrivacyPolicy) -> None:
    kept = "no" if one.retain_days is None else f"{one.retain_days} days"
    rows = [
        *_redaction_rows(one.redaction),
        ["requests and answers are kept", kept],
        ["versions go with erased data", _yes(one.withdraw)],
        ["dedicated replicas", _yes(one.dedicated)],
    ]
    table(["privacy", ""], rows)


def _redaction_rows(one: RedactionPolicy) -> list[list[str]]:
    """Of patterns and lists the labels: what they look for may be private itself."""
    return [
        ["redaction", one.action],
        ["kinds", "all" if one.kinds is None else ", ".join(one.kinds) or "none"],
        ["patterns", ", ".join(one.patterns) or "none"],
        [
            "word lists",
            ", ".join(f"{name} ({len(of)})" for name, of in one.words.items()) or "none",
        ],
        ["model", one.model or "none"],
        ["conversations", _yes(one.conversation)],
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


REDACT = """[bold]Examples[/]

openmaas privacy redact "Write to anna.schmidt@example.org before Friday."

openmaas privacy redact --file letters.txt --json

Standard input and plain files hold a text a line."""


def redact(
    text: Arguments = None,
    file: File = None,
    as_json: AsJson = False,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Shows what the key's policy finds in texts, and what a model would see of them."""
    found = [item.text for item in texts.gather(text, file, None, by_line=True)]
    with remote.client(url) as client:
        for one in client.privacy.redact(found):
            if as_json:
                typer.echo(json.dumps(one, ensure_ascii=False))
            else:
                say(one["text"])

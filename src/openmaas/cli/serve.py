"""``openmaas serve``."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.screen import say

if TYPE_CHECKING:
    from openmaas.app import Store
    from openmaas.config import Settings

EXAMPLES = """[bold]Examples[/]

openmaas serve

openmaas serve --port 9000 --data-dir /srv/openmaas

OPENMAAS_LIMITS_QUEUE=64 openmaas serve --config openmaas.toml

Every setting has a name for the file and one for the environment: see docs/operate.md."""

WATCH_SECONDS = 0.1


def register(app: typer.Typer, panel: str) -> None:
    app.command(epilog=EXAMPLES, rich_help_panel=panel)(serve)


def serve(
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where to listen. [dim]\\[127.0.0.1][/]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="0 takes a free one. [dim]\\[8000][/]")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Serves what is deployed, until Ctrl-C; requests in flight then finish first."""
    chosen = folder.settings(config, host=host, port=port, data_dir=data_dir)
    store = folder.open_folder(chosen)
    from openmaas.app import memory_budget

    with folder.hold(chosen.data_path) as hold:
        store.artifacts.collect({(one.tenant, one.digest) for one in store.records.versions()})
        secret = _first_key(chosen, store)

        def listening(url: str) -> None:
            hold.announce(url, memory_budget(chosen))
            _greet(url, secret, store)
            threading.Thread(target=_tell, args=[store], daemon=True).start()

        from openmaas.app import serve as run

        run(chosen, store, listening)


def _first_key(chosen: Settings, store: Store) -> str | None:
    if not chosen.tenancy or chosen.admin_key is not None or store.keys.list():
        return None
    from openmaas.audit import By
    from openmaas.tenancy.keys import SCOPES, NewKey

    new = NewKey(name="first", scopes=SCOPES)
    return store.keys.create(new, By("openmaas serve"))[1]


def _greet(url: str, secret: str | None, store: Store) -> None:
    say(f"Serving at    {url}", "bold")
    if secret is not None:
        say(f"Admin key     {secret}", "bold")
        say("              It is shown this once; `keys create NAME` makes more.")
    deployed = store.deployments.all()
    if not deployed:
        say(f"No model is deployed yet:  {_command()} models pull --starters --deploy")
        return
    say("Try, in another terminal:")
    say(f"  export OPENMAAS_URL={url} OPENMAAS_API_KEY={secret or '<your key>'}")
    for command in _suggestions(store, _command()):
        say(f"  {command}")


def _command() -> str:
    """How this very program is called from a shell here."""
    program = Path(sys.argv[0])
    if shutil.which("openmaas") or program.name != "openmaas":
        return "openmaas"
    here = Path.cwd()
    return str(program.relative_to(here) if program.is_relative_to(here) else program)


def _suggestions(store: Store, me: str) -> list[str]:
    """A command for each task that something deployed does, at most one each."""
    found: dict[str, str] = {}
    # The echo runtime is a fake for tests: it is shown only where nothing else is there.
    for one in sorted(store.deployments.all(), key=lambda one: one.runtime == "echo"):
        if not one.tenant:
            found.setdefault(store.records.version(one.model, one.version).task, one.model)
    commands = []
    if model := found.get("chat"):
        commands.append(f'{me} chat {model} "What is gravity?"')
    if model := found.get("embed"):
        body = f'{{"model": "{model}", "input": "Hello"}}'
        commands.append(
            'curl -s $OPENMAAS_URL/v1/embeddings -H "Authorization: Bearer $OPENMAAS_API_KEY" '
            f"-H 'Content-Type: application/json' -d '{body}'"
        )
    if model := found.get("predict"):
        example = "examples/digits.json" if model == "digits" else "ROWS.json"
        commands.append(f"{me} predict {model} {example}")
    return commands


def _tell(store: Store) -> None:
    """Says of each model when it answers, or why it does not."""
    told: set[str] = set()
    began = time.monotonic()
    while True:
        deployed = store.deployments.all()
        for one in deployed:
            name = f"{one.label} version {one.version}"
            if name in told or one.gateway_pid != os.getpid():
                continue  # what is written there is still an earlier server's
            if one.state == "ready":
                say(f"✓ {one.label} is ready after {time.monotonic() - began:.1f} s", "green")
            elif one.state == "asleep":
                say(f"· {one.label} is loaded when it is called")
            elif one.state == "broken":
                say(f"✗ {one.label} cannot be served: {one.detail}", "red")
            else:
                continue
            told.add(name)
        if told >= {f"{one.label} version {one.version}" for one in deployed}:
            return
        time.sleep(WATCH_SECONDS)

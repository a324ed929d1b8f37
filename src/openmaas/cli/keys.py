"""``openmaas keys …``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.screen import err, say, table

app = typer.Typer(help="API keys: made, listed, revoked.", no_args_is_help=True)


@app.command(
    epilog="[bold]Examples[/]\n\nopenmaas keys create notebook\n\n"
    "export OPENMAAS_API_KEY=$(openmaas keys create ci --scope admin)"
)
def create(
    name: Annotated[str, typer.Argument(help="Who or what will hold it.")],
    scope: Annotated[
        str, typer.Option(help="`inference` calls models; `admin` also loads and measures them.")
    ] = "inference",
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Makes a key. Its secret is printed this once: only a hash of it is kept."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    record, secret = store.keys.create(name, scope)
    err.print(f"{record.id}, scope {record.scope}; the secret is shown this once:")
    say(secret)


@app.command("list", epilog="[bold]Example[/]\n\nopenmaas keys list")
def list_(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Lists all keys, the revoked ones too, without their secrets."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    rows = [
        [one.id, one.name, one.scope, _date(one.created), _date(one.revoked)]
        for one in store.keys.list()
    ]
    table(["id", "name", "scope", "made", "revoked"], rows)


@app.command(epilog="[bold]Example[/]\n\nopenmaas keys revoke key_0123456789ab")
def revoke(
    id: Annotated[str, typer.Argument(help="As `openmaas keys list` names it.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Revokes a key; a running server refuses it within a second."""
    folder.open_folder(folder.settings(config, data_dir=data_dir)).keys.revoke(id)
    say(f"{id} is revoked")


def _date(seconds: int | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))

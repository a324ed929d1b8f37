"""``openmaas privacy rotate`` and ``rotate-master``."""

from __future__ import annotations

from typing import Annotated

import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.screen import say

ROTATE = """[bold]Examples[/]

openmaas privacy rotate acme

openmaas privacy rotate acme --rewrite"""
ROTATE_MASTER = "[bold]Example[/]\n\nopenmaas privacy rotate-master"


def register(app: typer.Typer) -> None:
    app.command(epilog=ROTATE)(rotate)
    app.command("rotate-master", epilog=ROTATE_MASTER)(rotate_master)


def rotate(
    tenant: Annotated[str, typer.Argument(help="Whose.")],
    rewrite: Annotated[
        bool,
        typer.Option(
            "--rewrite",
            help="Seal anew what older keys have sealed, and destroy these: a running server "
            "does so beside requests.",
        ),
    ] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Gives a tenant a new key for all that is stored from now on; what there is stays readable."""
    chosen = folder.settings(config, data_dir=data_dir)
    store = folder.open_folder(chosen)
    from openmaas.privacy.resealing import rotate as replace

    key = replace(store.database, store.keyring, store.tenants, tenant, folder.me(), rewrite)
    say(f"tenant {tenant} seals with {key.id} from now on")
    if rewrite:
        running = folder.running(chosen.data_path)
        who = "the server" if running else "the next server (openmaas serve)"
        say(f"what older keys have sealed, {who} seals anew; then it destroys them")


def rotate_master(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Makes a new master key and wraps the keys of all tenants by it; a running server follows.

    Where the key is in OPENMAAS_MASTER_KEY or with a program, no key is made: they are wrapped by
    the one that comes first there, or that the program takes now.
    """
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    count = store.keyring.rotate_master(folder.me())
    now = store.keyring.master.current() or store.keyring.master.where
    say(f"{count} keys of tenants are wrapped anew, by {now}")
    say(f"keep a copy of {store.keyring.master.where} apart from the data: nothing can be read "
        "without it")  # fmt: skip

"""``openmaas privacy erase``, ``erasures`` and ``verify``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.screen import date, err, fail, out, say, size, table
from openmaas.errors import ConfigurationError, Conflict, OpenMaaSError

if TYPE_CHECKING:
    from openmaas.app import Privacy, Store
    from openmaas.config import Settings
    from openmaas.privacy.erasures import Erasure

Tenant = Annotated[str, typer.Argument(help="As `openmaas tenants list` names it.")]

LOOK_SECONDS = 0.2
WAIT_SECONDS = 600.0  # for a server


def register(app: typer.Typer) -> None:
    app.command(epilog=ERASE_EXAMPLES)(erase)
    app.command(epilog="[bold]Example[/]\n\nopenmaas privacy erasures acme")(erasures)
    app.command(epilog=VERIFY_EXAMPLES)(verify)


ERASE_EXAMPLES = """[bold]Examples[/]

openmaas privacy erase acme --yes --record acme-erased.json

openmaas privacy erase acme --dataset ds_0123456789abcdef01234567 --yes

A tenant's name, its bills and the acts of the audit log stay; docs/privacy.md says why. Typed
again after a crash, it goes on where it was."""


def erase(
    tenant: Tenant,
    dataset: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this data set of the tenant's.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="There is no way back.")] = False,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the signed record is written.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Erases all of a tenant, or a data set: destroys its keys first, then what they sealed."""
    from openmaas.app import open_privacy

    what = f"all of tenant {tenant}" if dataset is None else f"data set {dataset} of {tenant}"
    if not yes:
        raise ConfigurationError(f"this erases {what} for good; say --yes")
    chosen = folder.settings(config, data_dir=data_dir)
    store = folder.open_folder(chosen)
    privacy = open_privacy(chosen, store)
    begun = privacy.erasures.request(tenant, folder.me(), dataset or "")
    if begun.object != (dataset or ""):
        say(f"all of tenant {tenant} is being erased already: {begun.id}")
    with err.status(f"erasing {what}"):
        done = _finish(privacy, store, chosen, begun.id)
    _tell(done)
    if record is not None and done.record is not None:
        record.write_bytes(msgspec.json.format(msgspec.json.encode(done.record)) + b"\n")
        say(f"its signed record is {record}")


def erasures(
    tenant: Annotated[
        str | None, typer.Argument(help="None: of all tenants.", show_default=False)
    ] = None,
    id: Annotated[
        str | None, typer.Option(metavar="ID", help="Show the signed record of this one.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Lists what was erased, and how far what is being erased is."""
    from openmaas.app import open_privacy

    chosen = folder.settings(config, data_dir=data_dir)
    found = open_privacy(chosen, folder.open_folder(chosen)).erasures
    if id is not None:
        one = found.get(id)
        if one.record is None:
            raise Conflict(f"{id} is {one.state}; it is signed when it is done")
        say(msgspec.json.format(msgspec.json.encode(one.record)).decode())
        return
    rows = [
        [
            one.id, one.tenant, one.object or "all", one.state, date(one.requested),
            date(one.unreadable), date(one.finished),
        ]
        for one in found.list(tenant)
    ]  # fmt: skip
    table(["id", "tenant", "what", "state", "requested", "unreadable", "finished"], rows)


VERIFY_EXAMPLES = """[bold]Examples[/]

openmaas privacy verify acme-erased.json --key 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a6…

The key is what `GET /v1/erasures/key` of the server tells that signed it."""


def verify(
    file: Annotated[Path, typer.Argument(help="A signed record.")],
    key: Annotated[
        str | None, typer.Option(metavar="HEX", help="The key whose signature it must be.")
    ] = None,
) -> None:
    """Checks the signature of a record of an erasure; needs no server and no data folder."""
    from openmaas.privacy.signing import parsed, verified

    try:
        signed = parsed(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    if not verified(signed, key):
        fail(f"{file} is not what that key signed")
        raise typer.Exit(1)
    about = signed.record
    say(f"{file}: {about.get('object')} of tenant {about.get('tenant')} was erased")
    say(f"unreadable since {date(about.get('unreadable'))}, done {date(about.get('finished'))}")
    if key is None:
        say(f"signed by {signed.public_key}: compare it with what the server tells, or say --key")


def _finish(privacy: Privacy, store: Store, chosen: Settings, id: str) -> Erasure:
    """Does it, or waits for the server that does.

    Raises:
        OpenMaaSError: the server takes too long; it goes on with it.
    """
    from openmaas.privacy.eraser import erase_alone

    until = time.monotonic() + WAIT_SECONDS
    while True:
        one = privacy.erasures.get(id)
        if one.state == "done":
            return one
        try:
            with folder.hold(chosen.data_path):
                store.memory.sweep()  # what a server that was killed left unsealed
                return erase_alone(id, privacy.erasures, privacy.erasing, privacy.halting)
        except Conflict:  # a server runs, which does it
            pass
        if time.monotonic() > until:
            raise OpenMaaSError(f"{id} is {one.state} still; the server goes on with it")
        time.sleep(LOOK_SECONDS)


def _tell(done: Erasure) -> None:
    found = done.found
    rows = []
    if found is not None:
        rows = [
            [kind, f"{one.count:,}", size(one.bytes) if one.bytes else ""]
            for kind, one in found.things.items()
        ]
    table(["removed", "count", "on disk"], rows, right=("count", "on disk"))
    for one in found.trained if found is not None else ():
        what = "withdrawn" if one.withdrawn else "still there"
        say(f"trained on it: {one.model} version {one.version}, {what}")
    out.print(f"\n[bold]{done.id}[/] is done")

"""``openmaas privacy report``, ``export`` and ``retained``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.privacy.erasing import Tenant
from openmaas.cli.screen import date, err, out, say, size, table
from openmaas.errors import ConfigurationError

Json = Annotated[bool, typer.Option("--json", help="For programs.")]
MOST = 1000  # exchanges that are listed at one time


def register(app: typer.Typer) -> None:
    app.command(epilog="[bold]Example[/]\n\nopenmaas privacy report acme")(report)
    app.command(epilog="[bold]Example[/]\n\nopenmaas privacy export acme --output acme.tar")(export)
    app.command(epilog=RETAINED_EXAMPLES)(retained)


def report(
    tenant: Tenant, json: Json = False, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Says what is held of a tenant: where, why, until when, sealed with which key."""
    from openmaas.app import open_privacy
    from openmaas.tenancy.privacy import stored

    chosen = folder.settings(config, data_dir=data_dir)
    found = open_privacy(chosen, folder.open_folder(chosen)).reports.of(tenant)
    if json:
        say(msgspec.json.encode(found).decode())
        return
    closed = "" if found.closed is None else f", closed {date(found.closed)}"
    out.print(f"[bold]{tenant}[/]{closed}, as of {date(found.made)}\n")
    rows = [
        [one.kind, f"{one.count:,}", size(one.bytes) if one.bytes else "", one.where, one.sealed]
        for one in found.held
        if one.count
    ]
    table(["what", "count", "on disk", "where", "sealed"], rows, right=("count", "on disk"))
    out.print()
    rows = [[one.kind, one.purpose, one.until, one.erased] for one in found.held if one.count]
    table(["what", "why", "until", "when erased"], rows)
    policy = msgspec.json.encode(stored(found.policy)).decode()
    out.print("\n[bold]Policy[/]")
    say(policy if policy != "{}" else "none: nothing is hidden, nothing is retained")
    for day in found.retained:
        if day.dropped:
            say(f"{day.day}: {day.dropped} exchanges were dropped: there was no room for them")
    if found.trained:
        out.print("\n[bold]Trained[/]")
        rows = [
            [
                f"{one.model}@{one.version}",
                one.dataset,
                "" if one.there else "gone",
                "no" if one.privacy is None else f"ε = {one.privacy.get('epsilon')}",
            ]
            for one in found.trained
        ]
        table(["version", "data set", "", "private"], rows)
    if found.erasures:
        out.print("\n[bold]Erased[/]")
        rows = [
            [one.id, one.object or "all", one.state, date(one.finished)] for one in found.erasures
        ]
        table(["erasure", "what", "state", "done"], rows)
    out.print("\n[bold]In memory alone[/]")
    for line in found.memory_only:
        say(f"- {line}")


def export(
    tenant: Tenant,
    output: Annotated[Path, typer.Option(metavar="FILE", help="A tar; it must not be there.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Writes everything that is held of a tenant, unsealed, into a tar that only you may read."""
    from openmaas.app import open_privacy

    chosen = folder.settings(config, data_dir=data_dir)
    exports = open_privacy(chosen, folder.open_folder(chosen)).exports
    exports.check(tenant)
    try:
        opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"cannot make {output}: {error.strerror}") from None
    whole = False
    try:
        with os.fdopen(opened, "wb") as file, err.status(f"writing {output}"):
            file.writelines(exports.tar(tenant))
        whole = True
    except OSError as error:
        raise ConfigurationError(f"cannot write {output}: {error.strerror}") from None
    finally:
        if not whole:
            output.unlink(missing_ok=True)
    say(f"{output}: {size(output.stat().st_size)}; README.txt in it says what is where")


RETAINED_EXAMPLES = """[bold]Examples[/]

openmaas privacy retained acme --day 2026-12-31

openmaas privacy retained acme --show req_019ac0ffee00…

openmaas privacy retained acme --remove all

Nothing is retained unless the tenant's policy says so, with retain_days."""


def retained(
    tenant: Tenant,
    day: Annotated[str | None, typer.Option(metavar="2026-12-31", help="Only this one's.")] = None,
    show: Annotated[
        str | None, typer.Option(metavar="REQUEST", help="What was sent and answered.")
    ] = None,
    remove: Annotated[
        str | None, typer.Option(metavar="REQUEST|all", help="Remove one, or all.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Lists requests and answers that a tenant has kept."""
    from openmaas.app import open_privacy
    from openmaas.privacy.retained import parse_day

    chosen = folder.settings(config, data_dir=data_dir)
    store = folder.open_folder(chosen)
    store.tenants.get(tenant)
    kept = open_privacy(chosen, store).retained
    if remove == "all":
        say(f"{kept.remove_all(tenant, folder.me())} removed")
    elif remove is not None:
        kept.remove(tenant, remove, folder.me())
        say(f"{remove} is removed")
    elif show is not None:
        _, bodies = kept.get(tenant, show)
        for body in (bodies.sent, bodies.answered):
            say(body.decode(errors="replace"))
    else:
        found = kept.list(tenant, day=None if day is None else parse_day(day), limit=MOST)
        rows = [
            [
                one.request, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.time / 1000)),
                one.path, one.model, str(one.status), size(one.request_bytes),
                size(one.response_bytes), "cut" if one.cut else "",
            ]
            for one in found
        ]  # fmt: skip
        columns = ["request", "answered", "path", "model", "status", "sent", "got", ""]
        table(columns, rows, right=("status", "sent", "got"))
        if len(found) == MOST:
            say("there may be more: --day shows one day's")

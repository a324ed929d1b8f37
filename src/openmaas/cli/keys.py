"""``openmaas keys …``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.quotas import QuotaOption, Tenant, quota_of, told
from openmaas.cli.screen import date, duration, err, say, table

app = typer.Typer(help="API keys: made, listed, rotated, revoked.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="As `openmaas keys list` names it.")]

CREATE_EXAMPLES = """[bold]Examples[/]

openmaas keys create notebook

openmaas keys create web --tenant acme --project shop --model smollm2-135m --expires 90d

openmaas keys create trial --quota requests_per_minute=10 --quota money_in_all=5

export OPENMAAS_API_KEY=$(openmaas keys create ops --scope admin)"""


@app.command(epilog=CREATE_EXAMPLES)
def create(
    name: Annotated[str, typer.Argument(help="Who or what will hold it.")],
    tenant: Tenant = "default",
    project: Annotated[str, typer.Option(metavar="NAME", help="Of the tenant.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="`inference` calls models, `train` makes them, `manage` administers the tenant, "
            "`admin` everything; repeatable. [dim]\\[inference][/]"
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The only models it may call; repeatable."),
    ] = None,
    quota: QuotaOption = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="After which it is refused: 12h, 90d.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Makes a key. Its secret is printed this once: only a hash of it is kept."""
    from openmaas.tenancy.keys import NewKey

    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    new = NewKey(
        name=name,
        tenant=tenant,
        project=project,
        scopes=tuple(scope or ["inference"]),
        models=tuple(model) if model else None,
        quota=quota_of(quota),
        expires=None if expires is None else int(time.time()) + duration(expires),
    )
    record, secret = store.keys.create(new, folder.me())
    err.print(f"{record.id}, scope {', '.join(record.scopes)}; the secret is shown this once:")
    say(secret)


@app.command("list", epilog="[bold]Example[/]\n\nopenmaas keys list --tenant acme")
def list_(
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this one's.")] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Lists keys, the revoked ones too, without their secrets."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    rows = [
        [
            one.id,
            one.tenant,
            one.project,
            one.name,
            " ".join(one.scopes),
            " ".join(one.models or ["all"]),
            told(one.quota),
            date(one.created),
            date(one.expires),
            date(one.revoked),
        ]
        for one in store.keys.list(tenant)
    ]
    columns = ["id", "tenant", "project", "name", "scopes", "models", "quota", "made", "expires"]
    table([*columns, "revoked"], rows)


@app.command(
    epilog="[bold]Example[/]\n\nopenmaas keys quota key_0123456789ab requests_per_minute=60"
)
def quota(
    id: Id,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=VALUE…", help="None at all: no bounds of its own."),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Replaces a key's quota; a running server follows within a second."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    changed = store.keys.change(id, folder.me(), quota=quota_of(pairs))
    say(f"{id}: {told(changed.quota) or 'no bounds of its own'}")


@app.command(epilog="[bold]Example[/]\n\nopenmaas keys rotate key_0123456789ab --overlap 7d")
def rotate(
    id: Id,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old one stays good.")
    ] = "1d",
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Makes a new key that may do what the old one may; the old one ends after the overlap."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    record, secret = store.keys.rotate(id, folder.me(), overlap=duration(overlap))
    err.print(f"{record.id}; {id} stays good for {overlap}; the secret is shown this once:")
    say(secret)


@app.command(epilog="[bold]Example[/]\n\nopenmaas keys revoke key_0123456789ab")
def revoke(id: Id, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Revokes a key; a running server refuses it within a second."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    store.keys.revoke(id, folder.me())
    say(f"{id} is revoked")

"""``openmaas tenants …`` and ``openmaas projects …``."""

from __future__ import annotations

from typing import Annotated

import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.quotas import QuotaOption, Tenant, quota_of, told
from openmaas.cli.screen import date, say, table

tenants = typer.Typer(help="Tenants: who pays and owns.", no_args_is_help=True)
projects = typer.Typer(help="Projects within a tenant.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Small letters, digits and hyphens.")]
Weight = Annotated[
    float | None,
    typer.Option(help="Its share where models are contended, beside the others' 1."),
]


@tenants.command(
    epilog="[bold]Example[/]\n\nopenmaas tenants create acme --weight 3 --quota money_per_month=500"
)
def create(
    name: Name,
    weight: Weight = None,
    quota: QuotaOption = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Makes a tenant, with a project called `default`."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    made = store.tenants.create(
        name, folder.me(), weight=1.0 if weight is None else weight, quota=quota_of(quota)
    )
    say(f"tenant {made.id}; a key for it: openmaas keys create NAME --tenant {made.id}")


@tenants.command("list", epilog="[bold]Example[/]\n\nopenmaas tenants list")
def list_(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Lists tenants, the closed ones too."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    rows = [
        [one.id, f"{one.weight:g}", told(one.quota), date(one.created), date(one.closed)]
        for one in store.tenants.list()
    ]
    table(["tenant", "weight", "quota", "made", "closed"], rows, right=("weight",))


@tenants.command(
    epilog="[bold]Example[/]\n\nopenmaas tenants change acme --quota tokens_per_day=1000000"
)
def change(
    name: Name,
    weight: Weight = None,
    quota: QuotaOption = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Replaces a tenant's weight or its quota; a running server follows within a second."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    new = None if quota is None else quota_of([pair for pair in quota if pair])
    changed = store.tenants.change(name, folder.me(), weight=weight, quota=new)
    say(f"{name}: weight {changed.weight:g}, {told(changed.quota) or 'no bounds'}")


@tenants.command(epilog="[bold]Example[/]\n\nopenmaas tenants close acme")
def close(name: Name, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Refuses all keys of a tenant from now on; its usage stays on record."""
    folder.open_folder(folder.settings(config, data_dir=data_dir)).tenants.close(name, folder.me())
    say(f"{name} is closed")


@projects.command(
    "create", epilog="[bold]Example[/]\n\nopenmaas projects create shop --tenant acme"
)
def create_project(
    name: Name,
    tenant: Tenant = "default",
    quota: QuotaOption = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Makes a project."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    store.tenants.create_project(tenant, name, folder.me(), quota=quota_of(quota))
    say(f"project {name} of tenant {tenant}")


@projects.command("list", epilog="[bold]Example[/]\n\nopenmaas projects list --tenant acme")
def list_projects(
    tenant: Tenant = "default", data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Lists a tenant's projects, the closed ones too."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    rows = [
        [one.id, told(one.quota), date(one.created), date(one.closed)]
        for one in store.tenants.projects(tenant)
    ]
    table(["project", "quota", "made", "closed"], rows)


@projects.command(
    "quota",
    epilog="[bold]Example[/]\n\nopenmaas projects quota shop money_per_day=20 --tenant acme",
)
def quota_of_project(
    name: Name,
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE…", help="None at all: no bounds.")
    ] = None,
    tenant: Tenant = "default",
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Replaces a project's quota; a running server follows within a second."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    changed = store.tenants.change_project(tenant, name, folder.me(), quota=quota_of(pairs))
    say(f"{name}: {told(changed.quota) or 'no bounds'}")


@projects.command("close", epilog="[bold]Example[/]\n\nopenmaas projects close shop --tenant acme")
def close_project(
    name: Name, tenant: Tenant = "default", data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Refuses all keys of a project from now on; its usage stays on record."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    store.tenants.close_project(tenant, name, folder.me())
    say(f"{name} is closed")

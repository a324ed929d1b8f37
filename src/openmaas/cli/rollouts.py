"""``openmaas promote``, ``rollback`` and ``alias``: which version answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.screen import PUBLIC, err, say
from openmaas.errors import ConfigurationError, Conflict

if TYPE_CHECKING:
    from openmaas.app import Store
    from openmaas.config import Settings
    from openmaas.registry.deployments import Alias, Bounds, Target

POLL_SECONDS = 0.05
LIVE = "live"

Model = Annotated[str, typer.Argument(help="As `openmaas status` names it.")]
Name = Annotated[str, typer.Option("--alias", metavar="NAME", help="Which alias of the model.")]
Owner = Annotated[
    str, typer.Option("--tenant", metavar="NAME", help="Whose model. [dim]\\[everybody's][/]")
]
MaxErrors = Annotated[
    float | None,
    typer.Option(help="Take it back by itself when a larger share of its calls fails: 0.05."),
]
MaxSlowdown = Annotated[
    float | None,
    typer.Option(help="… or when its slowest twentieth takes so many times as long: 2."),
]


def register(app: typer.Typer, panel: str) -> None:
    app.command(epilog=PROMOTE_EXAMPLES, rich_help_panel=panel)(promote)
    app.command(epilog=ROLLBACK_EXAMPLES, rich_help_panel=panel)(rollback)
    app.command(epilog=ALIAS_EXAMPLES, rich_help_panel=panel)(alias)


PROMOTE_EXAMPLES = """[bold]Examples[/]

openmaas promote digits

openmaas promote digits --version 2"""


def promote(
    model: Model,
    version: Annotated[
        int | None, typer.Option(help="[dim]\\[the newest that the alias leads to][/]")
    ] = None,
    alias: Name = LIVE,
    tenant: Owner = PUBLIC,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Sends all traffic to one version, at once if it is loaded; the others drain."""
    from openmaas.registry.deployments import Target

    chosen = folder.settings(config, data_dir=data_dir)
    store = folder.open_folder(chosen)
    if version is None:
        now = _alias(store, (tenant, model, alias))
        version = max(one.version for one in now.targets)
    point_and_report(chosen, store, (tenant, model, alias), [Target(version)])


ROLLBACK_EXAMPLES = "[bold]Example[/]\n\nopenmaas rollback digits"


def rollback(
    model: Model,
    alias: Name = LIVE,
    tenant: Owner = PUBLIC,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Sends the traffic where it went before the last change."""
    chosen = folder.settings(config, data_dir=data_dir)
    store = folder.open_folder(chosen)
    _report(chosen, store, store.deployments.roll_back((tenant, model, alias), folder.me()))


ALIAS_EXAMPLES = """[bold]Examples[/]

openmaas alias digits

openmaas alias digits 1=90 2=10 --max-errors 0.05

openmaas alias digits 3=100 --alias next

openmaas alias digits 1=100 --shadow 2

A call then names `digits`, `digits@next`, or a version: `digits@2`."""


def alias(
    model: Model,
    weights: Annotated[
        list[str] | None, typer.Argument(metavar="[VERSION=PERCENT]...", help="100 in all.")
    ] = None,
    alias: Name = LIVE,
    shadow: Annotated[
        int | None, typer.Option(help="A version that gets copies of the calls, to be compared.")
    ] = None,
    shadow_share: Annotated[float, typer.Option(help="Of the calls.", min=0.001, max=1.0)] = 1.0,
    max_errors: MaxErrors = None,
    max_slowdown: MaxSlowdown = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
    tenant: Owner = PUBLIC,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Shows where a model's aliases lead, or has one lead to versions by weight."""
    from openmaas.registry.deployments import Shadow, Target

    chosen = folder.settings(config, data_dir=data_dir)
    store = folder.open_folder(chosen)
    name = (tenant, model, alias)
    if remove:
        store.deployments.remove_alias(name, folder.me())
        say(f"{model}@{alias} is removed")
        return
    if not weights and shadow is None:
        found = store.deployments.aliases(model, tenant)
        if not found:
            say(f"{model} has no alias: it is not deployed", "yellow")
        for one in found:
            say(told(one))
        return
    targets = [Target(*_weight(one)) for one in weights or ()] or _alias(store, name).targets
    point_and_report(
        chosen,
        store,
        name,
        targets,
        shadow=None if shadow is None else Shadow(shadow, shadow_share),
        bounds=bounds(max_errors, max_slowdown),
    )


def bounds(errors: float | None, slowdown: float | None) -> Bounds | None:
    from openmaas.registry.deployments import Bounds

    if errors is None and slowdown is None:
        return None
    return Bounds(errors=errors, latency=slowdown)


def point_and_report(
    chosen: Settings,
    store: Store,
    name: tuple[str, str, str],
    targets: list[Target],
    **how: object,
) -> None:
    """
    Raises:
        Conflict: a version cannot be served; the alias is as it was.
    """
    from openmaas.serving import fleet

    _report(
        chosen,
        store,
        fleet.point(
            store.records,
            store.deployments,
            store.artifacts,
            name,
            targets,
            folder.me(),
            **how,  # type: ignore[arg-type]
        ),
    )


def told(one: Alias) -> str:
    """An alias in a line."""
    text = f"{one.label} → {_targets(one.targets)}"
    if one.pending is not None:
        text += f"; loading: {_targets(one.pending.targets)}"
    if one.previous is not None:
        text += f"; before: {_targets(one.previous)}"
    if one.shadow is not None:
        text += f"; shadow: version {one.shadow.version}"
    return text + (f" ({one.detail})" if one.detail else "")


def _targets(targets: list[Target]) -> str:
    return ", ".join(f"version {one.version} {one.weight:g} %" for one in targets)


def _alias(store: Store, name: tuple[str, str, str]) -> Alias:
    for one in store.deployments.aliases(name[1], name[0]):
        if one.alias == name[2]:
            return one
    raise ConfigurationError(f"no alias {name[2]!r} of model {name[1]!r}; see: openmaas status")


def _weight(text: str) -> tuple[int, float]:
    version, _, percent = text.partition("=")
    try:
        return int(version), float(percent)
    except ValueError:
        raise ConfigurationError(f"{text!r}: write it as VERSION=PERCENT, 2=10") from None


def _report(chosen: Settings, store: Store, wanted: Alias) -> None:
    """Says where an alias leads, once a server that runs has loaded it."""
    name = (wanted.tenant, wanted.model, wanted.alias)
    until = time.monotonic() + chosen.limits.load_seconds
    now = wanted
    if folder.running(chosen.data_path) is not None:
        with err.status(f"waiting for {wanted.label}"):
            while now.pending is not None and time.monotonic() < until:
                time.sleep(POLL_SECONDS)
                now = _alias(store, name)
    if now.pending is None and wanted.pending is not None and now.targets != wanted.pending.targets:
        raise Conflict(now.detail or f"{now.label} was changed by another meanwhile")
    say(told(now), "green" if now.pending is None else "yellow")

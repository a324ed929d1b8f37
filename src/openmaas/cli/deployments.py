"""``openmaas deploy``, ``undeploy`` and ``status``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, Unpack

import msgspec
import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.rollouts import MaxErrors, MaxSlowdown, bounds, point_and_report, told
from openmaas.cli.screen import PUBLIC, duration, err, pairs, say, size, table
from openmaas.errors import ConfigurationError, EngineFailed

if TYPE_CHECKING:
    from openmaas.app import Store
    from openmaas.config import Settings
    from openmaas.registry.deployments import Deployed, Replicas

POLL_SECONDS = 0.1
SETTLED = ("ready", "broken", "asleep")

Owner = Annotated[
    str, typer.Option("--tenant", metavar="NAME", help="Whose model. [dim]\\[everybody's][/]")
]


class _How(TypedDict, total=False):
    version: int | None
    runtime: str | None
    options: dict[str, Any] | None
    replicas: Replicas | None
    idle_seconds: float | None
    live: bool
    tenant: str


def register(app: typer.Typer, panel: str) -> None:
    app.command(epilog=DEPLOY_EXAMPLES, rich_help_panel=panel)(deploy)
    app.command(epilog=UNDEPLOY_EXAMPLES, rich_help_panel=panel)(undeploy)
    app.command(epilog=STATUS_EXAMPLES, rich_help_panel=panel)(status)


DEPLOY_EXAMPLES = """[bold]Examples[/]

openmaas deploy smollm2-135m

openmaas deploy digits --version 2 --canary 10 --max-errors 0.05

openmaas deploy digits --min-replicas 1 --option batch_max_requests=64

Options differ from runtime to runtime: see docs/operate.md."""


def deploy(
    model: Annotated[str, typer.Argument(help="As `openmaas models list` names it.")],
    version: Annotated[int | None, typer.Option(help="[dim]\\[the newest][/]")] = None,
    runtime: Annotated[str | None, typer.Option(help="[dim]\\[chosen by the format][/]")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the runtime; repeatable.")
    ] = None,
    canary: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", help="Of the calls for it; the rest stays where it is."),
    ] = None,
    max_errors: MaxErrors = None,
    max_slowdown: MaxSlowdown = None,
    min_replicas: Annotated[
        int, typer.Option(help="Workers that stay loaded; 0: it leaves memory when it is idle.")
    ] = 0,
    max_replicas: Annotated[int, typer.Option(help="Workers, when there is much to do.")] = 1,
    idle: Annotated[
        str | None, typer.Option(help="Leave memory after so long without a call: 90s, 15m.")
    ] = None,
    tenant: Owner = PUBLIC,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Has a model served, by the running server at once or by the next one.

    A version that is served already goes on answering until the new one is loaded.
    """
    from openmaas.registry.deployments import LIVE, MOST_REPLICAS, Replicas, Target

    if not 0 <= min_replicas <= max_replicas <= MOST_REPLICAS or not max_replicas:
        raise ConfigurationError(
            f"--min-replicas and --max-replicas: from 0 and 1 to {MOST_REPLICAS}, in that order"
        )
    chosen = folder.settings(config, data_dir=data_dir)
    store = folder.open_folder(chosen)
    deploy_and_report(
        chosen,
        store,
        model,
        version=version,
        runtime=runtime,
        options=pairs(option or [], "--option"),
        replicas=Replicas(min=min_replicas, max=max_replicas),
        idle_seconds=None if idle is None else float(duration(idle)),
        live=canary is None,
        tenant=tenant,
    )
    if canary is not None:
        live = [one for one in store.deployments.aliases(model, tenant) if one.alias == LIVE]
        if not live:
            raise ConfigurationError(f"{model} is not deployed yet: deploy it without --canary")
        if not 0 < canary < 100:
            raise ConfigurationError("--canary: more than 0 and less than 100 percent")
        number = store.records.version(model, version, tenant).version
        targets = [Target(live[0].main, 100 - canary), Target(number, canary)]
        limits = bounds(max_errors, max_slowdown)
        point_and_report(chosen, store, (tenant, model, LIVE), targets, bounds=limits)
    say_when(chosen)


def deploy_and_report(chosen: Settings, store: Store, model: str, **how: Unpack[_How]) -> None:
    """Writes the wish down, says what was chosen and, where a server runs, what became of it.

    Raises:
        ModelNotFound, ConfigurationError: see ``serving.fleet.deploy``.
        EngineFailed: the model cannot be loaded, or not in time.
    """
    from openmaas.serving import fleet

    wanted = fleet.deploy(
        store.records, store.deployments, store.artifacts, model, folder.me(), **how
    )
    say(f"{wanted.label} version {wanted.version} on {wanted.runtime}: {wanted.reason}")
    if folder.running(chosen.data_path) is None:
        return
    with err.status(f"waiting for {wanted.label}"):
        seen = _settled(store, wanted, chosen.limits.load_seconds)
    if seen is None:
        raise EngineFailed(f"{wanted.label} has been undeployed or deployed anew meanwhile")
    if not seen.runs_as(wanted):
        raise EngineFailed(f"{wanted.label} is served {seen.detail}")
    if seen.state == "asleep":
        say(f"{wanted.label} is asleep: {seen.detail}")
        return
    if seen.state != "ready":
        raise EngineFailed(
            f"{wanted.label} is {seen.state}: {seen.detail or 'see openmaas status'}"
        )
    say(f"{wanted.label} is ready", "green")


def say_when(chosen: Settings) -> None:
    """Says when what was deployed starts, where no server runs that has started it already."""
    if folder.running(chosen.data_path) is None:
        say("It starts with: openmaas serve")


def _settled(store: Store, wanted: Deployed, seconds: float) -> Deployed | None:
    """What a server reports of a deployment once it is ready or given up; None: it is gone."""
    until = time.monotonic() + seconds
    while True:
        seen = {one.name: one for one in store.deployments.all()}.get(wanted.name)
        if seen is None or seen.generation != wanted.generation:
            return None
        done = seen.gateway_pid is not None and seen.state in SETTLED
        if done or time.monotonic() > until:
            return seen
        time.sleep(POLL_SECONDS)


UNDEPLOY_EXAMPLES = """[bold]Examples[/]

openmaas undeploy digits

openmaas undeploy digits --version 1"""


def undeploy(
    model: Annotated[str, typer.Argument(help="As `openmaas status` names it.")],
    version: Annotated[
        int | None, typer.Option(help="One to which no traffic goes. [dim]\\[all of them][/]")
    ] = None,
    tenant: Owner = PUBLIC,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Takes a model down, after its requests in flight; its versions stay on this machine."""
    folder.open_folder(folder.settings(config, data_dir=data_dir)).deployments.undeploy(
        model, folder.me(), tenant, version
    )
    what = model if version is None else f"{model} version {version}"
    say(f"{what} is no longer served")


STATUS_EXAMPLES = "[bold]Example[/]\n\nopenmaas status"


def status(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Shows what is deployed, on what and why, and how it does."""
    from openmaas.registry.deployments import LIVE

    chosen = folder.settings(config, data_dir=data_dir)
    deployed, aliases = folder.open_folder(chosen).deployments.everything()
    server = folder.running(chosen.data_path)
    if server is None:
        say("No server runs over this data folder. Start one with: openmaas serve", "yellow")
    else:
        say(f"Server {server.url}, process {server.pid}")
    if not deployed:
        say("Nothing is deployed. See: openmaas models list, openmaas deploy --help")
        return
    live = server is not None
    table(
        ["model", "version", "runtime", "state", "pid", "memory", "restarts", "why this runtime"],
        [_row(one, live) for one in deployed],
        right=("version", "pid", "memory", "restarts"),
    )
    for one in deployed:
        if live and one.detail and one.state not in ("ready", "asleep"):
            say(f"{one.label}: {one.detail}", "red" if one.state == "broken" else "yellow")
        if live and one.state == "ready" and (missing := _missing(one)):
            say(f"{one.label}: its workers are confined without {', '.join(missing)}", "yellow")
    for alias in aliases:
        plain = alias.alias == LIVE and len(alias.targets) == 1
        if not plain or alias.pending or alias.previous or alias.shadow or alias.detail:
            say(told(alias))
    if server is not None:
        pids = [pid for one in deployed for pid in one.workers]
        budget = size(server.memory_budget)
        say(f"Models take {_memory(pids) or size(0)} of {budget} (memory_budget)")


def _row(one: Deployed, live: bool) -> list[str]:
    return [
        one.label,
        str(one.version),
        one.runtime,
        one.state if live else "waiting for a server",
        " ".join(map(str, one.workers)) if live else "",
        _memory(one.workers) if live and one.workers else "",
        str(one.restarts) if live else "",
        one.reason,
    ]


def _missing(one: Deployed) -> list[str]:
    """Layers of the sandbox that do not confine its workers."""
    from openmaas.inference import ModelInfo
    from openmaas.placement.sandbox import LAYERS

    try:
        have = msgspec.convert(one.info, ModelInfo).layers
    except msgspec.ValidationError:  # another release wrote it
        return []
    return [name for name in LAYERS if name not in have]


def _memory(pids: list[int]) -> str:
    try:
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    except (OSError, IndexError, ValueError):
        return ""
    return size(pages * os.sysconf("SC_PAGE_SIZE"))

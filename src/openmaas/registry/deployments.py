"""What is to be served: versions with their replicas, and the aliases that choose among them.

A call names ``model``, ``model@alias`` or ``model@version``; ``model`` alone is its alias ``live``.
An alias changes in two steps: what is wanted is ``pending`` until a gateway has loaded all of it,
and is then ``targets`` by one transaction, whose old value stays as ``previous``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database
from openmaas.errors import Conflict, InvalidRequest, ModelNotFound
from openmaas.registry.records import Version, is_of
from openmaas.schema import PUBLIC, aliases, deployments, versions

LIVE = "live"
ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
MOST_REPLICAS = 64

Number = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]


class Replicas(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many workers a deployment has. ``min`` 0: it leaves memory when it is idle, or when
    another needs the room; 1 or more: so many are pinned."""

    min: Annotated[int, msgspec.Meta(ge=0, le=MOST_REPLICAS)] = 0
    max: Annotated[int, msgspec.Meta(ge=1, le=MOST_REPLICAS)] = 1


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is to be served, and what became of it."""

    model: str
    version: int
    runtime: str
    reason: str
    options: dict[str, Any]
    generation: int
    min_replicas: int = 0
    max_replicas: int = 1
    idle_seconds: float | None = None
    kept: bool = False  # also where no alias leads to it
    state: str = "waiting for a server"
    detail: str = ""
    gateway_pid: int | None = None
    workers: list[int] = []
    restarts: int = 0
    memory: int = 0
    load_seconds: float = 0.0
    info: Any = None  # what it said of itself when it was loaded, as the gateway keeps it
    tenant: str = PUBLIC

    @property
    def label(self) -> str:
        return f"{self.tenant}/{self.model}" if self.tenant else self.model

    def runs_as(self, wanted: Deployed) -> bool:
        """Whether it has the settings of another: what cannot be loaded with new ones has its old
        ones back."""
        return (self.runtime, self.options) == (wanted.runtime, wanted.options)

    @property
    def name(self) -> tuple[str, str, int]:
        return self.tenant, self.model, self.version


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version's part of an alias's traffic."""

    version: Number
    weight: Annotated[float, msgspec.Meta(ge=0, le=100)] = 100.0  # percent


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that gets a copy of the calls; its answers are compared, and seen by nobody."""

    version: Number
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0  # of the calls


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Beyond these a new version among others is taken back at once."""

    errors: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = 0.05  # share of its calls
    # its 95th percentile in those of the version with the most weight
    latency: Annotated[float, msgspec.Meta(gt=1, le=1000)] | None = None
    calls: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 50  # before it is judged


class Plan(msgspec.Struct, frozen=True):
    """What an alias is to become, once all of it is loaded."""

    targets: list[Target]
    shadow: Shadow | None = None
    bounds: Bounds | None = None


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A movable name for versions."""

    model: str
    alias: str
    targets: list[Target]
    pending: Plan | None = None
    previous: list[Target] | None = None  # what one version answered alone, the last time
    shadow: Shadow | None = None
    bounds: Bounds | None = None
    detail: str = ""
    generation: int = 1
    changed: int = 0  # Unix seconds
    tenant: str = PUBLIC

    @property
    def label(self) -> str:
        whose = f"{self.tenant}/{self.model}" if self.tenant else self.model
        return f"{whose}@{self.alias}"

    @property
    def main(self) -> int:
        """The version with the most weight; of equals the oldest."""
        return max(self.targets, key=lambda one: (one.weight, -one.version)).version

    def versions(self) -> set[int]:
        """All that it refers to."""
        found = {one.version for one in (*self.targets, *(self.previous or ()))}
        plans = (Plan(self.targets, self.shadow), *([self.pending] if self.pending else []))
        for plan in plans:
            found |= {one.version for one in plan.targets}
            found |= {plan.shadow.version} if plan.shadow else set()
        return found


_DEPLOYED = [deployments.c[name] for name in Deployed.__struct_fields__]
_ALIAS = [aliases.c[name] for name in Alias.__struct_fields__]
_SEEN = (
    "state", "detail", "gateway_pid", "workers", "restarts", "memory", "load_seconds", "info",
)  # fmt: skip


class Deployments:
    """All methods are short transactions; call them from a thread in the gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- what is there ----------------------------------------------------------------------

    def all(self) -> list[Deployed]:
        return self.everything()[0]

    def everything(self) -> tuple[list[Deployed], list[Alias]]:
        """Deployments and aliases as of one moment, by model."""
        order = (deployments.c.model, deployments.c.tenant, deployments.c.version)
        with self._database.read() as connection:
            found = connection.execute(sa.select(*_DEPLOYED).order_by(*order)).all()
            named = connection.execute(sa.select(*_ALIAS).order_by(aliases.c.alias)).all()
        keys = Deployed.__struct_fields__
        served = [Deployed(**dict(zip(keys, row, strict=True))) for row in found]
        return served, [_alias(row) for row in named]

    def aliases(self, model: str, tenant: str = PUBLIC) -> list[Alias]:
        with self._database.read() as connection:
            return _aliases(connection, model, tenant)

    # --- deployments ------------------------------------------------------------------------

    def deploy(
        self,
        version: Version,
        by: By,
        runtime: str,
        reason: str,
        options: dict[str, Any],
        *,
        replicas: Replicas | None = None,
        idle_seconds: float | None = None,
        live: bool = True,
        kept: bool = False,
    ) -> Deployed:
        """Writes down that a version is wanted; servers act on it within a second.

        Args:
            live: all of the model's traffic is to go to it, once it answers.
            kept: it stays deployed where no alias leads to it.

        Raises:
            InvalidRequest: fewer replicas at the most than at the least.
            ModelNotFound: the version was removed meanwhile.
        """
        replicas = replicas or Replicas()
        if replicas.max < replicas.min:
            raise InvalidRequest("replicas: max is less than min", param="replicas")
        tenant, model, number = version.tenant, version.model, version.version
        which = is_of(deployments, model, tenant) & (deployments.c.version == number)
        there = is_of(versions, model, tenant) & (versions.c.version == number)
        with self._database.write() as connection:
            # Held until the end, so that it is not removed at this very moment.
            held = sa.select(versions.c.version).where(there).with_for_update()
            if connection.execute(held).first() is None:
                raise ModelNotFound(f"model {model!r} version {number} was removed")
            old = connection.execute(sa.select(*_DEPLOYED).where(which)).mappings().first()
            wanted = Deployed(
                model=model,
                version=number,
                runtime=runtime,
                reason=reason,
                options=options,
                generation=_next(0 if old is None else old["generation"]),
                kept=kept or (old is not None and old["kept"]),
                min_replicas=replicas.min,
                max_replicas=replicas.max,
                idle_seconds=idle_seconds,
                memory=0 if old is None else old["memory"],
                load_seconds=0.0 if old is None else old["load_seconds"],
                info=None if old is None or old["runtime"] != runtime else old["info"],
                tenant=tenant,
            )
            connection.execute(deployments.delete().where(which))
            connection.execute(deployments.insert().values(**msgspec.structs.asdict(wanted)))
            by.note(
                connection,
                "model.deploy",
                model,
                tenant=tenant,
                version=number,
                runtime=runtime,
                options=options,
                replicas=msgspec.to_builtins(replicas),
            )
            if live:
                _point(connection, (tenant, model, LIVE), Plan([Target(number)]))
            return wanted

    def undeploy(self, model: str, by: By, tenant: str = PUBLIC, number: int | None = None) -> None:
        """Takes down a version, or all of a model with its aliases.

        Raises:
            ModelNotFound: it is not deployed.
            Conflict: an alias sends traffic to that version.
        """
        with self._database.write() as connection:
            which = is_of(deployments, model, tenant)
            if number is None:
                connection.execute(aliases.delete().where(is_of(aliases, model, tenant)))
            else:
                which &= deployments.c.version == number
                _let_go(connection, model, tenant, number)
            if not connection.execute(deployments.delete().where(which)).rowcount:
                what = model if number is None else f"{model} version {number}"
                raise ModelNotFound(f"{what!r} is not deployed; see `openmaas status`")
            detail = {} if number is None else {"version": number}
            by.note(connection, "model.undeploy", model, tenant=tenant, **detail)

    def restore(self, wanted: Deployed, serving: Deployed, why: str) -> None:
        """What was wanted cannot be loaded: a deployment is again as it serves, unless it has been
        replaced since."""
        columns = msgspec.structs.asdict(serving) | {
            "generation": wanted.generation,
            "detail": f"as before: {why}",
        }
        with self._database.write() as connection:
            connection.execute(
                deployments.update()
                .where(
                    is_of(deployments, wanted.model, wanted.tenant),
                    deployments.c.version == wanted.version,
                    deployments.c.generation == wanted.generation,
                )
                .values(**columns)
            )

    def report(self, seen: Deployed) -> None:
        """Notes what a gateway saw of a deployment, unless it has been replaced since."""
        with self._database.write() as connection:
            connection.execute(
                deployments.update()
                .where(
                    is_of(deployments, seen.model, seen.tenant),
                    deployments.c.version == seen.version,
                    deployments.c.generation == seen.generation,
                )
                .values({name: getattr(seen, name) for name in _SEEN})
            )

    # --- aliases -------------------------------------------------------------------------------

    def point(
        self,
        name: tuple[str, str, str],
        targets: Sequence[Target],
        by: By,
        *,
        shadow: Shadow | None = None,
        bounds: Bounds | None = None,
    ) -> Alias:
        """Has an alias (tenant, model, alias) lead to deployed versions, once all are loaded.

        Raises:
            InvalidRequest: a bad name, weights that are not 100 in sum, a version twice.
            ModelNotFound: a version is not deployed.
        """
        tenant, model, alias = name
        check(alias, targets, shadow)
        with self._database.write() as connection:
            _need(connection, model, tenant, [*targets, *([shadow] if shadow else [])])
            done = _point(connection, name, Plan(list(targets), shadow, bounds))
            by.note(
                connection,
                "alias.point",
                f"{model}@{alias}",
                tenant=tenant,
                targets=msgspec.to_builtins(list(targets)),
                shadow=msgspec.to_builtins(shadow),
                bounds=msgspec.to_builtins(bounds),
            )
            return done

    def roll_back(
        self, name: tuple[str, str, str], by: By, why: str = "", generation: int | None = None
    ) -> Alias:
        """Has an alias lead where it led before, or gives up what is pending.

        Args:
            generation: nothing is done if the alias has another by now.

        Raises:
            ModelNotFound: no such alias.
            Conflict: it led nowhere before.
        """
        tenant, model, alias = name
        with self._database.write() as connection:
            old = _one(connection, name)
            detail = f"rolled back{f': {why}' if why else ''}"
            back = None if old.previous is None else Plan(old.previous)
            if generation not in (None, old.generation) or (back and old.pending == back):
                return old  # it was changed since, or is on its way back
            if old.pending is not None:
                done = _change(connection, old, pending=None, detail=detail)
            elif old.previous is None and len(old.targets) > 1:
                # What it was before is unknown; what has the most weight is trusted the most.
                done = _change(connection, old, pending=Plan([Target(old.main)]), detail=detail)
            elif old.previous is None:
                raise Conflict(f"{old.label} led nowhere before; there is nothing to go back to")
            else:
                done = _change(connection, old, pending=back, detail=detail)
            by.note(connection, "alias.roll_back", f"{model}@{alias}", tenant=tenant, why=why)
            return done

    def settle(self, alias: Alias) -> Alias | None:
        """What is pending answers from now on; what nothing refers to any more is not deployed.
        None: the alias was changed meanwhile."""
        with self._database.write() as connection:
            now = _find(connection, (alias.tenant, alias.model, alias.alias))
            if now is None or now.generation != alias.generation or now.pending is None:
                return None
            plan = now.pending
            back: list[Target] | None = now.targets
            if plan.targets == now.previous:
                back = None  # it was taken back: nobody wants to go there again unasked
            elif plan.targets == now.targets or (len(now.targets) > 1 and now.previous):
                # It was deployed anew, or is on its way from one version to another: what it is
                # taken back to is where that way began.
                back = now.previous
            done = _change(
                connection,
                now,
                targets=plan.targets,
                shadow=plan.shadow,
                bounds=plan.bounds,
                pending=None,
                previous=back,
            )
            _drop_unused(connection, alias.model, alias.tenant)
            return done

    def give_up(self, alias: Alias, why: str) -> None:
        """What is pending cannot be served: the alias stays as it is."""
        with self._database.write() as connection:
            now = _find(connection, (alias.tenant, alias.model, alias.alias))
            if now is not None and now.generation == alias.generation:
                _change(connection, now, pending=None, detail=why)

    def remove_alias(self, name: tuple[str, str, str], by: By) -> None:
        """
        Raises:
            ModelNotFound: no such alias.
            Conflict: it is ``live``.
        """
        tenant, model, alias = name
        if alias == LIVE:
            raise Conflict(f"{LIVE} is what {model!r} means by itself; undeploy the model instead")
        with self._database.write() as connection:
            _one(connection, name)
            connection.execute(aliases.delete().where(_named(name)))
            _drop_unused(connection, model, tenant)
            by.note(connection, "alias.remove", f"{model}@{alias}", tenant=tenant)


def _alias(row: Sequence[Any]) -> Alias:
    return msgspec.convert(dict(zip(Alias.__struct_fields__, row, strict=True)), Alias)


def _aliases(connection: sa.Connection, model: str, tenant: str) -> list[Alias]:
    query = sa.select(*_ALIAS).where(is_of(aliases, model, tenant)).order_by(aliases.c.alias)
    return [_alias(row) for row in connection.execute(query)]


def _named(name: tuple[str, str, str]) -> sa.ColumnElement[bool]:
    tenant, model, alias = name
    return is_of(aliases, model, tenant) & (aliases.c.alias == alias)


def _find(connection: sa.Connection, name: tuple[str, str, str]) -> Alias | None:
    row = connection.execute(sa.select(*_ALIAS).where(_named(name))).first()
    return None if row is None else _alias(row)


def _one(connection: sa.Connection, name: tuple[str, str, str]) -> Alias:
    found = _find(connection, name)
    if found is None:
        raise ModelNotFound(f"no alias {name[2][:32]!r} of model {name[1][:64]!r}")
    return found


def _next(generation: int) -> int:
    """Of the clock, so that what is removed and made again is another, too."""
    return max(generation + 1, time.time_ns() // 1_000_000)


def check(alias: str, targets: Sequence[Target], shadow: Shadow | None) -> None:
    """
    Raises:
        InvalidRequest: a bad name, weights that are not 100 in sum, a version twice.
    """
    if ALIAS.match(alias) is None:
        raise InvalidRequest("an alias is a lower-case letter, then letters, digits, _ or -")
    numbers = [one.version for one in targets]
    if not targets or len(set(numbers)) != len(numbers) or len(numbers) > 16:
        raise InvalidRequest("targets: from 1 to 16 versions, each once", param="targets")
    if abs(sum(one.weight for one in targets) - 100) > 0.01:
        raise InvalidRequest("targets: the weights, in percent, add up to 100", param="targets")
    if shadow is not None and shadow.version in numbers:
        raise InvalidRequest("shadow: that version answers already", param="shadow")


def _need(
    connection: sa.Connection, model: str, tenant: str, wanted: Sequence[Target | Shadow]
) -> None:
    query = sa.select(deployments.c.version).where(is_of(deployments, model, tenant))
    have = set(connection.execute(query).scalars())
    for one in wanted:
        if one.version not in have:
            raise ModelNotFound(f"{model!r} version {one.version} is not deployed")


def _point(connection: sa.Connection, name: tuple[str, str, str], plan: Plan) -> Alias:
    tenant, model, alias = name
    old = _find(connection, name)
    if old is not None:
        return _change(connection, old, pending=plan, detail="")
    # Nothing else could answer meanwhile: there is nothing to wait for.
    made = Alias(
        model=model,
        alias=alias,
        targets=plan.targets,
        shadow=plan.shadow,
        bounds=plan.bounds,
        generation=_next(0),
        changed=int(time.time()),
        tenant=tenant,
    )
    connection.execute(aliases.insert().values(**_columns(made)))
    return made


def _change(connection: sa.Connection, old: Alias, **to: Any) -> Alias:
    new = msgspec.structs.replace(
        old, generation=_next(old.generation), changed=int(time.time()), **to
    )
    which = _named((old.tenant, old.model, old.alias))
    connection.execute(aliases.update().where(which).values(**_columns(new)))
    return new


def _columns(alias: Alias) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(alias)
    return found


def _let_go(connection: sa.Connection, model: str, tenant: str, number: int) -> None:
    """No alias leads back to a version.

    Raises:
        Conflict: one leads there now.
    """
    for alias in _aliases(connection, model, tenant):
        if number in msgspec.structs.replace(alias, previous=None).versions():
            raise Conflict(
                f"{alias.label} sends traffic to version {number}; point it elsewhere first"
            )
        if number in alias.versions():
            _change(connection, alias, previous=None)


def _drop_unused(connection: sa.Connection, model: str, tenant: str) -> None:
    kept: set[int] = set()
    for alias in _aliases(connection, model, tenant):
        kept |= alias.versions()
    which = is_of(deployments, model, tenant) & deployments.c.version.not_in(kept)
    which &= deployments.c.kept.is_(False)
    connection.execute(deployments.delete().where(which))

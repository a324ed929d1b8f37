"""Versions that were trained on data that are erased: which they are, and how they go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from openmaas.registry.records import Version, is_of
from openmaas.schema import aliases, cards, deployments, versions

_VERSION = [versions.c[name] for name in Version.__struct_fields__]


def trained_on(connection: sa.Connection, tenant: str, dataset: str) -> Sequence[Version]:
    """A tenant's versions whose cards name a data set."""
    query = (
        sa.select(*_VERSION, cards.c.card)
        .join(
            cards,
            (cards.c.tenant == versions.c.tenant)
            & (cards.c.model == versions.c.model)
            & (cards.c.version == versions.c.version),
        )
        .where(versions.c.tenant == tenant)
        .order_by(*versions.primary_key.columns)
    )
    return [
        Version(*row[:-1])
        for row in connection.execute(query)
        if ((row.card or {}).get("dataset") or {}).get("id") == dataset
    ]


def withdraw(connection: sa.Connection, tenant: str, model: str, number: int) -> None:
    """Takes a version down, whatever leads to it, and forgets it. Where an alias sent calls to
    others too, these get them all; where to none else, the alias goes."""
    for alias in connection.execute(sa.select(aliases).where(is_of(aliases, model, tenant))).all():
        which = is_of(aliases, model, tenant) & (aliases.c.alias == alias.alias)
        targets = _without(alias.targets, number)
        pending = alias.pending
        if pending is not None and _leads(pending, number):
            pending = None
        if not targets and pending is None:
            connection.execute(aliases.delete().where(which))
            continue
        shadow = alias.shadow if (alias.shadow or {}).get("version") != number else None
        values: dict[str, Any] = {
            "targets": targets or _without(pending["targets"], number),
            "pending": pending if targets else None,
            "previous": _without(alias.previous or [], number) or None,
            "shadow": shadow,
            "detail": f"version {number} is withdrawn: its data are erased",
            "generation": max(alias.generation + 1, time.time_ns() // 1_000_000),
            "changed": int(time.time()),
        }
        connection.execute(aliases.update().where(which).values(**values))
    for table in (deployments, cards, versions):
        mine = is_of(table, model, tenant) & (table.c.version == number)
        connection.execute(table.delete().where(mine))


def _without(targets: Sequence[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """The others, whose weights are 100 in sum again."""
    others = [one for one in targets if one["version"] != number]
    total = sum(one["weight"] for one in others)
    if not total:
        return [one | {"weight": 100 / len(others)} for one in others]
    return [one | {"weight": 100 * one["weight"] / total} for one in others]


def _leads(pending: dict[str, Any], number: int) -> bool:
    shadow = (pending.get("shadow") or {}).get("version")
    return number in (shadow, *(one["version"] for one in pending.get("targets", ())))

"""Who changed what, and when: a row for each administrative act, in the act's own transaction."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import sqlalchemy as sa

from openmaas.database import Database
from openmaas.schema import audit as table
from openmaas.schema import changes


class Act(msgspec.Struct, frozen=True):
    id: int
    time: int  # Unix seconds
    actor: str
    tenant: str
    act: str
    object: str
    detail: dict[str, Any]


class By(msgspec.Struct, frozen=True):
    """Who acts. ``actor`` is a key's id, or the account at the command line."""

    actor: str

    def note(
        self,
        connection: sa.Connection,
        act: str,
        object: str,
        *,
        tenant: str = "",
        **detail: Any,
    ) -> None:
        """Writes the act down, and tells gateways to look again at who may do what.

        Args:
            act: what was done to what: ``key.create`` …
            tenant: whose thing it was done to.
            detail: what was set; never a secret.
        """
        connection.execute(
            table.insert().values(
                time=int(time.time()),
                actor=self.actor,
                tenant=tenant,
                act=act,
                object=object,
                detail=detail,
            )
        )
        connection.execute(changes.update().values(number=changes.c.number + 1))


def acts(
    database: Database, *, tenant: str | None = None, before: int | None = None, limit: int = 100
) -> list[Act]:
    """The newest acts first.

    Args:
        tenant: only those on things of one tenant.
        before: only those older than the act of this id, for the next page.
    """
    query = sa.select(table).order_by(table.c.id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    if before is not None:
        query = query.where(table.c.id < before)
    with database.read() as connection:
        return [Act(*row) for row in connection.execute(query)]

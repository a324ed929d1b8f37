"""What tenants keep on disk, within their quotas."""

from __future__ import annotations

import sqlalchemy as sa

from openmaas.errors import QuotaExhausted
from openmaas.registry.records import stored
from openmaas.schema import tenants
from openmaas.tenancy.quota import quota


def check_stored(connection: sa.Connection, tenant: str, more: int) -> None:
    """
    Raises:
        QuotaExhausted: with so many bytes more the tenant stores more than its quota.
    """
    row = connection.execute(sa.select(tenants.c.quota).where(tenants.c.id == tenant)).first()
    most = None if row is None else quota(row.quota).stored_bytes
    total = stored(connection, tenant) + more
    if most is not None and total > most:
        raise QuotaExhausted(
            f"tenant {tenant} would store {total} bytes; its quota is stored_bytes={most}"
        )

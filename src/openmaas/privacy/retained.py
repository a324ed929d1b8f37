"""Requests and answers that tenants have kept: sealed records in a file a day, and where each is.

A day of a tenant has a key of its own, which goes with the day: a copy of its file, in a backup
say, is of no use to anybody from then on.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database
from openmaas.disk import disk_errors, sync_folder
from openmaas.encryption.keyring import Key, Keyring
from openmaas.encryption.values import seal, unseal
from openmaas.errors import InvalidRequest, NotFound, QuotaExhausted
from openmaas.schema import data_keys, retained, retained_days, tenants
from openmaas.storage import check_stored
from openmaas.tenancy.privacy import PrivacyPolicy, privacy

FOLDER = "retained"
BODY_BYTES = 1 << 20  # of a request, and of an answer, that are kept
MOST_BYTES = 16 << 30  # of one tenant, whatever its quota
DAY_SECONDS = 86_400


class Exchange(msgspec.Struct, frozen=True):
    """A request and its answer, as a client sent and got them.

    Attributes:
        cut: a body was longer than ``BODY_BYTES``; what follows is not kept.
    """

    tenant: str
    request: str
    time: int  # when it was answered, milliseconds
    key: str
    path: str
    model: str
    status: int  # 0: the client left before it was answered
    request_bytes: int
    response_bytes: int
    cut: bool
    sent: bytes
    answered: bytes

    @property
    def size(self) -> int:
        return len(self.sent) + len(self.answered)


class Retained(msgspec.Struct, frozen=True):
    """What a list says of one: nothing of what it says itself."""

    request: str
    day: int  # 20261231
    time: int
    key: str
    path: str
    model: str
    status: int
    request_bytes: int
    response_bytes: int
    cut: bool


class Bodies(msgspec.Struct, frozen=True):
    """What is sealed of one."""

    sent: bytes
    answered: bytes


class Day(msgspec.Struct, frozen=True):
    """What is kept of a tenant's day.

    Attributes:
        dropped: exchanges for which there was no room.
    """

    day: int
    count: int
    bytes: int
    dropped: int


_LISTED = [retained.c[name] for name in Retained.__struct_fields__]


class RetainedExchanges:
    """All methods block; call them from a thread in the gateway.

    Args:
        folder: the data folder.
    """

    def __init__(self, database: Database, keyring: Keyring, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._database = database
        self._keyring = keyring

    # --- keeping ------------------------------------------------------------------------------

    def keep(self, tenant: str, day: int, group: Sequence[Exchange]) -> int:
        """Writes some of a tenant's exchanges of a day, with one flush to disk.

        Returns:
            How many there was no room for: they are counted, and gone.

        Raises:
            StorageFull, StorageUnavailable: none are written.
        """
        while True:
            key = self._keyring.key(tenant, object_of(day))
            dropped = self._keep(tenant, day, group, key)
            if dropped is not None:
                return dropped
            self._keyring.forget()  # the day was removed a moment ago, and its key

    def _keep(self, tenant: str, day: int, group: Sequence[Exchange], key: Key) -> int | None:
        """As ``keep``; None: the key is destroyed."""
        records = [
            seal(
                msgspec.msgpack.encode(Bodies(one.sent, one.answered)),
                key,
                _about(tenant, one.request),
            )
            for one in group
        ]
        size = sum(map(len, records))
        which = (retained_days.c.tenant == tenant) & (retained_days.c.day == day)
        with self._database.write() as connection:
            # Held until the end: a tenant that is erased is closed first, and keeps nothing more.
            held = sa.select(tenants.c.closed).where(tenants.c.id == tenant).with_for_update()
            row = connection.execute(held).first()
            if row is None or row.closed is not None:
                self._keyring.destroy(connection, tenant, object_of(day))
                return len(group)
            there = sa.select(data_keys.c.id).where(data_keys.c.id == key.id)
            if connection.execute(there).first() is None:
                return None
            known = connection.execute(sa.select(retained_days).where(which)).first()
            if known is None:
                empty = {"tenant": tenant, "day": day, "bytes": 0, "dropped": 0}
                connection.execute(retained_days.insert().values(**empty))
            start = 0 if known is None else known.bytes
            if not _room(connection, tenant, size):
                dropped = (0 if known is None else known.dropped) + len(group)
                connection.execute(retained_days.update().where(which).values(dropped=dropped))
                return len(group)
            self._append(tenant, day, start, b"".join(records))
            rows = []
            for one, record in zip(group, records, strict=True):
                about = {name: getattr(one, name) for name in _COPIED}
                rows.append(about | {"day": day, "start": start, "length": len(record)})
                start += len(record)
            connection.execute(retained.insert(), rows)
            connection.execute(retained_days.update().where(which).values(bytes=start))
        return 0

    def _append(self, tenant: str, day: int, start: int, data: bytes) -> None:
        """What a crash left behind ``start`` has no row, and gives way."""
        path = self.path(tenant, day)
        with disk_errors():
            fresh = not path.exists()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                _write(opened, start, data)
                os.ftruncate(opened, start + len(data))
                os.fsync(opened)
            finally:
                os.close(opened)
            if fresh:
                sync_folder(path.parent)
                sync_folder(self.folder)

    def drop_some(self, tenant: str, day: int, count: int) -> None:
        """Counts exchanges of a day for which there was no room in memory."""
        which = (retained_days.c.tenant == tenant) & (retained_days.c.day == day)
        with self._database.write() as connection:
            more = retained_days.c.dropped + count
            changed = connection.execute(retained_days.update().where(which).values(dropped=more))
            if not changed.rowcount:
                row = {"tenant": tenant, "day": day, "bytes": 0, "dropped": count}
                connection.execute(retained_days.insert().values(**row))

    # --- looking ------------------------------------------------------------------------------

    def list(
        self, tenant: str, *, day: int | None = None, after: str = "", limit: int = 100
    ) -> Sequence[Retained]:
        """The oldest first.

        Args:
            day: only those of one.
            after: the last one's request of the page before.
        """
        query = sa.select(*_LISTED).where(retained.c.tenant == tenant, retained.c.request > after)
        if day is not None:
            query = query.where(retained.c.day == day)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(retained.c.request).limit(limit))
            return [Retained(*row) for row in rows]

    def days(self, tenant: str) -> Sequence[Day]:
        """What is kept, the oldest first."""
        of = retained_days.c
        count = (
            sa.select(sa.func.count())
            .where(retained.c.tenant == of.tenant, retained.c.day == of.day)
            .scalar_subquery()
        )
        query = sa.select(of.day, count, of.bytes, of.dropped).where(of.tenant == tenant)
        with self._database.read() as connection:
            return [Day(*row) for row in connection.execute(query.order_by(of.day))]

    def get(self, tenant: str, request: str) -> tuple[Retained, Bodies]:
        """One, unsealed.

        Raises:
            NotFound: there is none.
        """
        query = sa.select(*_LISTED, retained.c.start, retained.c.length).where(
            retained.c.tenant == tenant, retained.c.request == request
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise _absent(request)
        *listed, start, length = row
        found = Retained(*listed)
        with (
            contextlib.suppress(FileNotFoundError),
            self.path(tenant, found.day).open("rb") as file,
        ):
            record = os.pread(file.fileno(), length, start)
            if any(record):  # else it is being removed at this very moment
                plain = unseal(record, self._keyring, _about(tenant, request))
                return found, msgspec.msgpack.decode(plain, type=Bodies)
        raise _absent(request)

    # --- removing -----------------------------------------------------------------------------

    def remove(self, tenant: str, request: str, by: By) -> None:
        """Overwrites one with zeros. It shares its key with its day: a copy of the file that was
        made before is of no use only once the day has gone.

        Raises:
            NotFound
        """
        which = (retained.c.tenant == tenant) & (retained.c.request == request)
        with self._database.write() as connection:
            row = connection.execute(sa.select(retained).where(which).with_for_update()).first()
            if row is None:
                raise _absent(request)
            path = self.path(tenant, row.day)
            with (
                contextlib.suppress(FileNotFoundError),
                disk_errors(),
                path.open("r+b", buffering=0) as file,
            ):
                _write(file.fileno(), row.start, bytes(row.length))
                os.fsync(file.fileno())
            connection.execute(retained.delete().where(which))
            by.note(connection, "retained.remove", request, tenant=tenant)
            others = sa.select(retained.c.request).where(
                retained.c.tenant == tenant, retained.c.day == row.day
            )
            last = connection.execute(others.limit(1)).first() is None
        if last:
            self.remove_day(tenant, row.day)

    def remove_all(self, tenant: str, by: By) -> int:
        """How many there were."""
        count = 0
        for one in self.days(tenant):
            self.remove_day(tenant, one.day)
            count += one.count
        with self._database.write() as connection:
            by.note(connection, "retained.remove", tenant, tenant=tenant, count=count)
        return count

    def remove_day(self, tenant: str, day: int) -> None:
        """Its key first: nobody can read it from then on, whatever happens."""
        with self._database.write() as connection:
            # Nobody adds to it at this very moment.
            held = sa.select(tenants.c.id).where(tenants.c.id == tenant).with_for_update()
            connection.execute(held).first()
            self._keyring.destroy(connection, tenant, object_of(day))
            for table in (retained, retained_days):
                connection.execute(
                    table.delete().where(table.c.tenant == tenant, table.c.day == day)
                )
        self.path(tenant, day).unlink(missing_ok=True)
        self._keyring.scrub()

    def sweep(self, now: float | None = None) -> int:
        """Removes what is older than its tenant's policy says, all of a tenant whose policy keeps
        nothing, and files that a crash left; how many days' that were."""
        now = time.time() if now is None else now
        query = sa.select(retained_days.c.tenant, retained_days.c.day, tenants.c.privacy).join(
            tenants, tenants.c.id == retained_days.c.tenant, isouter=True
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        kept, removed = set(), 0
        for row in rows:
            policy = PrivacyPolicy() if row.privacy is None else privacy(row.privacy)
            if ends(row.day, policy) <= now:
                self.remove_day(row.tenant, row.day)
                removed += 1
            else:
                kept.add((row.tenant, str(row.day)))
        for path in self.folder.glob("*/*") if self.folder.is_dir() else ():
            left = (path.parent.name, path.name) not in kept
            if left and path.stat().st_mtime < now - DAY_SECONDS:
                path.unlink(missing_ok=True)
        return removed

    def path(self, tenant: str, day: int) -> Path:
        """Of a tenant that is in the database: its name is one that can be a folder's."""
        return self.folder / tenant / str(day)


def object_of(day: int) -> str:
    """What the key of a day is for."""
    return f"retained:{day}"


def day_of(time_ms: int) -> int:
    """In UTC, as the number 20261231."""
    at = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    return at.year * 10_000 + at.month * 100 + at.day


def ends(day: int, policy: PrivacyPolicy) -> float:
    """When a day's exchanges are removed, in Unix seconds."""
    if policy.retain_days is None:
        return 0.0
    first = datetime.datetime(
        day // 10_000, day // 100 % 100, day % 100, tzinfo=datetime.UTC
    ).timestamp()
    return first + (policy.retain_days + 1) * DAY_SECONDS


_COPIED = [
    name for name in Exchange.__struct_fields__ if name not in ("sent", "answered")
]  # columns of ``retained`` too


def _about(tenant: str, request: str) -> bytes:
    """What a sealed record is bound to: it cannot be passed off as another's."""
    return f"retained\0{tenant}\0{request}".encode()


def _room(connection: sa.Connection, tenant: str, size: int) -> bool:
    total = sa.select(sa.func.coalesce(sa.func.sum(retained_days.c.bytes), 0)).where(
        retained_days.c.tenant == tenant
    )
    if int(connection.execute(total).scalar_one()) + size > MOST_BYTES:
        return False
    try:
        check_stored(connection, tenant, size)
    except QuotaExhausted:
        return False
    return True


def _write(opened: int, start: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(opened, view, start)
        view, start = view[done:], start + done


def _absent(request: str) -> NotFound:
    return NotFound(f"no exchange {request[:64]!r} is kept")


def parse_day(text: str) -> int:
    """
    Raises:
        InvalidRequest: it is no day.
    """
    try:
        at = datetime.date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest("day is written 2026-12-31", param="day") from None
    return at.year * 10_000 + at.month * 100 + at.day

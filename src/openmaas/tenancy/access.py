"""Who holds a secret, answered from memory and never later than half a second after a change."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import sqlalchemy as sa

from openmaas import background
from openmaas.database import Database
from openmaas.errors import OpenMaaSError
from openmaas.redaction.policy import RedactionPolicy
from openmaas.schema import changes, keys, projects, tenants
from openmaas.tenancy.keys import SCOPES, Scope, digest
from openmaas.tenancy.privacy import PrivacyPolicy, privacy, redaction
from openmaas.tenancy.quota import Quota, quota
from openmaas.tenancy.tenants import DEFAULT

POLL_SECONDS = 0.2
TRUST_SECONDS = 0.6  # without a look at the database nothing remembered is believed longer
ENVIRONMENT = "environment"  # the id of the key of ``OPENMAAS_ADMIN_KEY``
REMEMBERED = 10_000  # keys, known and unknown, so that guessing cannot fill the memory


class Caller(msgspec.Struct, frozen=True):
    """Who a request is from, and what holds for it."""

    key: str  # the key's id, never the secret
    tenant: str = DEFAULT
    project: str = DEFAULT
    scopes: frozenset[Scope] = frozenset(SCOPES)
    models: frozenset[str] | None = None  # None: all that the tenant sees
    expires: float = float("inf")  # Unix seconds
    weight: float = 1.0
    # of the tenant, the project and the key
    quotas: tuple[Quota, Quota, Quota] = (Quota(), Quota(), Quota())
    privacy: PrivacyPolicy = PrivacyPolicy()  # of the tenant
    redaction: RedactionPolicy = RedactionPolicy()  # the key's, else the tenant's

    def may(self, scope: Scope) -> bool:
        """An administrator may do everything."""
        return scope in self.scopes or "admin" in self.scopes

    def may_call(self, model: str) -> bool:
        return self.models is None or model in self.models


LOCAL = Caller(key="local", scopes=frozenset(("inference",)))
"""Who calls a server that asks for no keys. A web page may do so too: no more than inference."""


class Access:
    """Remembers callers while the database says that nothing has changed.

    Args:
        admin_key: a secret that is an admin beside those of the table (``OPENMAAS_ADMIN_KEY``).
        changed: called in a thread, at the first look and after each change.
    """

    def __init__(
        self,
        database: Database,
        admin_key: str | None = None,
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._changed = changed
        self._admin = digest(admin_key) if admin_key else None
        self._remembered: dict[str, Caller | None] = {}
        self._looking: dict[str, asyncio.Task[Caller | None]] = {}
        self._hashes: dict[str, str] = {}  # of secrets, by their keys' ids: those never change
        self._seen = -1  # the number of changes as of the last look
        self._trusted = 0.0  # until when, on the monotonic clock
        self._forgotten = 0  # how often everything was
        self._task: asyncio.Task[None] | None = None
        # Of its own: a slow report in the common pool must not keep a revoked key alive.
        self._thread = ThreadPoolExecutor(2, thread_name_prefix="access")

    def start(self) -> None:
        """Follows the database from now on."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        await background.end(self._task)
        self._thread.shutdown(wait=False)

    def known(self, secret: str) -> Caller | None:
        """Who holds a secret, if that is remembered; None: ask ``caller``. Most calls end here, and
        a coroutine costs them more than the look."""
        if time.monotonic() >= self._trusted:
            return None
        return _unexpired(self._remembered.get(digest(secret)))

    async def caller(self, secret: str) -> Caller | None:
        """Who holds a secret; None for an unknown, expired or revoked one.

        Raises:
            StorageUnavailable, StorageFull: the database is away.
        """
        return await self._holder(digest(secret))

    async def of_key(self, key: str) -> Caller | None:
        """Who holds the key of an id, for what is done in its name when nobody shows its secret;
        None for an unknown, expired or revoked one.

        Raises:
            StorageUnavailable, StorageFull: the database is away.
        """
        hashed = self._admin if key == ENVIRONMENT else self._hashes.get(key)
        if hashed is None and key != ENVIRONMENT:
            loop = asyncio.get_running_loop()
            hashed = await loop.run_in_executor(self._thread, self._hash, key)
            if hashed is not None and len(self._hashes) < REMEMBERED:
                self._hashes[key] = hashed
        return None if hashed is None else await self._holder(hashed)

    async def _holder(self, hashed: str) -> Caller | None:
        if time.monotonic() < self._trusted and hashed in self._remembered:
            return _unexpired(self._remembered[hashed])
        # Many requests of one key arrive together: one look-up serves them all.
        task = self._looking.get(hashed)
        if task is None:
            task = asyncio.create_task(self._look_up(hashed))
            self._looking[hashed] = task
            task.add_done_callback(lambda _: self._looking.pop(hashed, None))
        return _unexpired(await asyncio.shield(task))

    async def look(self) -> None:
        """Forgets everything if something has changed.

        Raises:
            StorageUnavailable, StorageFull: the database is away.
        """
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        number = await loop.run_in_executor(self._thread, self._number)
        if number != self._seen:
            self._seen = number
            self._remembered.clear()
            self._forgotten += 1
        self._trusted = began + TRUST_SECONDS

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(OpenMaaSError):  # what is remembered is soon not believed
                await self.look()
            await asyncio.sleep(POLL_SECONDS)

    async def _look_up(self, hashed: str) -> Caller | None:
        if time.monotonic() >= self._trusted:
            await self.look()
        loop = asyncio.get_running_loop()
        forgotten = self._forgotten
        caller: Caller | None
        if self._admin is not None and secrets.compare_digest(hashed, self._admin):
            caller = await loop.run_in_executor(self._thread, self._administrator)
        else:
            caller = await loop.run_in_executor(self._thread, self._find, hashed)
        if forgotten == self._forgotten:  # else it may be of before the change
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[hashed] = caller
        return caller

    def _number(self) -> int:
        with self._database.read() as connection:
            number = int(connection.execute(sa.select(changes.c.number)).scalar_one())
        if number != self._seen:
            self._changed()
        return number

    def _hash(self, key: str) -> str | None:
        with self._database.read() as connection:
            return connection.execute(sa.select(keys.c.hash).where(keys.c.id == key)).scalar()

    def _find(self, hashed: str) -> Caller | None:
        query = (
            sa.select(
                keys, tenants.c.weight, tenants.c.privacy, tenants.c.quota.label("of_tenant"),
                projects.c.quota.label("of_project"),
            )
            .join(tenants, tenants.c.id == keys.c.tenant)
            .join(
                projects, (projects.c.tenant == keys.c.tenant) & (projects.c.id == keys.c.project)
            )
            .where(
                keys.c.hash == hashed,
                keys.c.revoked.is_(None),
                tenants.c.closed.is_(None),
                projects.c.closed.is_(None),
            )
        )  # fmt: skip
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        policy = privacy(row.privacy)
        return Caller(
            key=row.id,
            tenant=row.tenant,
            project=row.project,
            scopes=frozenset(row.scopes),
            models=None if row.models is None else frozenset(row.models),
            expires=float("inf") if row.expires is None else row.expires,
            weight=row.weight,
            quotas=(quota(row.of_tenant), quota(row.of_project), quota(row.quota)),
            privacy=policy,
            redaction=policy.redaction if row.redaction is None else redaction(row.redaction),
        )

    def _administrator(self) -> Caller:
        """The key of the environment: of the default tenant, under its quota."""
        query = (
            sa.select(
                tenants.c.weight,
                tenants.c.quota,
                tenants.c.privacy,
                projects.c.quota.label("of_project"),
            )
            .join(projects, projects.c.tenant == tenants.c.id)
            .where(tenants.c.id == DEFAULT, projects.c.id == DEFAULT)
        )
        with self._database.read() as connection:
            row = connection.execute(query).one()
        quotas = (quota(row.quota), quota(row.of_project), Quota())
        policy = privacy(row.privacy)
        return Caller(
            key=ENVIRONMENT,
            weight=row.weight,
            quotas=quotas,
            privacy=policy,
            redaction=policy.redaction,
        )


def _unexpired(caller: Caller | None) -> Caller | None:
    return None if caller is None or caller.expires <= time.time() else caller

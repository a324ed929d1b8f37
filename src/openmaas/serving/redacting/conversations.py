"""Vaults that outlive a request: of conversations, in memory alone, while they are used."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from typing import NamedTuple

from openmaas.errors import InvalidRequest, RateLimited
from openmaas.redaction.vault import Vault

KEEP_SECONDS = 3600.0  # after it was last used
LONGEST_NAME = 128  # characters
OF_TENANT = 1000  # conversations at one time …
AT_ONCE = 10_000  # … and of all tenants; the one that was used longest ago makes room
VALUES = 10_000  # things that one conversation remembers


class Name(NamedTuple):
    """Whose conversation: another key of the same tenant has others."""

    tenant: str
    key: str
    id: str


class Conversations:
    """Nothing of them is ever written anywhere."""

    def __init__(self) -> None:
        # the one that was used longest ago first
        self._kept: OrderedDict[Name, tuple[Vault, float]] = OrderedDict()
        self._of_tenant: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._kept)

    def vault(self, name: Name) -> Vault:
        """The conversation's, which may be a new one.

        Raises:
            InvalidRequest: its name is none, or it remembers too much already.
            RateLimited: the tenant has too many.
        """
        if not (1 <= len(name.id) <= LONGEST_NAME and name.id.isprintable()):
            raise InvalidRequest(f"x-openmaas-conversation has from 1 to {LONGEST_NAME} characters")
        now = time.monotonic()
        self.forget(now)
        found = self._kept.get(name)
        if found is None:
            if self._of_tenant[name.tenant] >= OF_TENANT:
                raise RateLimited(
                    f"this tenant has {OF_TENANT} conversations already; they are forgotten "
                    f"{KEEP_SECONDS / 60:.0f} minutes after they were last used",
                    retry_after=60,
                )
            if len(self._kept) >= AT_ONCE:
                self._drop(next(iter(self._kept)))
            vault = Vault()
            self._of_tenant[name.tenant] += 1
        else:
            vault = found[0]
            if len(vault) >= VALUES:
                raise InvalidRequest(
                    f"this conversation has {VALUES} different personal data in it, as many as it "
                    "may: begin another"
                )
        self._kept[name] = vault, now
        self._kept.move_to_end(name)
        return vault

    def forget(self, now: float) -> None:
        """Drops those that were not used for long."""
        while self._kept:
            name, (_, used) = next(iter(self._kept.items()))
            if now - used < KEEP_SECONDS:
                return
            self._drop(name)

    def forget_tenant(self, tenant: str) -> None:
        """Drops all of one's."""
        for name in [name for name in self._kept if name.tenant == tenant]:
            self._drop(name)

    def _drop(self, name: Name) -> None:
        del self._kept[name]
        self._of_tenant[name.tenant] -= 1
        if not self._of_tenant[name.tenant]:
            del self._of_tenant[name.tenant]

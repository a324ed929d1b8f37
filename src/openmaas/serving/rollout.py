"""An alias at work: which version answers a call, how each does, and when one is taken back."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from typing import NamedTuple

from openmaas.registry.deployments import Alias, Target

WINDOW = 1000  # calls of a version that are remembered
SLOWEST = 0.95  # the quantile that is compared
SIGMAS = 2.0  # by which errors must be beyond their bound, so that chance alone takes nothing back
# Faults of a model or its machine; what a caller did wrong, or was refused, says nothing of it.
FAULTS = frozenset({"worker_failed", "engine_failed", "deadline_exceeded", "error", "server_error"})


class Seen(NamedTuple):
    """How a version did lately."""

    calls: int
    errors: int
    median_seconds: float
    slowest_seconds: float  # the 95th percentile


class Window:
    """The last calls of one version."""

    def __init__(self) -> None:
        self.total = 0
        self._calls: deque[tuple[float, bool]] = deque(maxlen=WINDOW)

    def add(self, seconds: float, failed: bool) -> None:
        self.total += 1
        self._calls.append((seconds, failed))

    def seen(self) -> Seen:
        good = sorted(seconds for seconds, failed in self._calls if not failed)
        errors = len(self._calls) - len(good)
        if not good:
            return Seen(len(self._calls), errors, math.nan, math.nan)
        at = min(len(good) - 1, int(SLOWEST * len(good)))
        return Seen(len(self._calls), errors, good[len(good) // 2], good[at])


class Route:
    """One alias, as of one moment.

    Args:
        before: the same alias as it was, whose counts go on.
    """

    def __init__(self, alias: Alias, before: Route | None = None) -> None:
        self.alias = alias
        kept: dict[int, Window] = {}
        if before is not None and before.alias.targets == alias.targets:
            kept = before.windows
        self.windows: dict[int, Window] = {
            one.version: kept.get(one.version) or Window() for one in alias.targets
        }
        self._only = alias.targets[0].version if len(alias.targets) == 1 else None
        self._credit = {one.version: 0.0 for one in alias.targets}

    @property
    def main(self) -> int:
        return self._only or self.alias.main

    def choose(self, key: str | None = None) -> int:
        """The version for the next call.

        Args:
            key: calls with the same one go to the same version, and a version that gets more
                weight keeps those that it has.
        """
        if self._only is not None:
            return self._only
        if key is not None:
            return self._sticky(key)
        # Smooth weighted round robin, as nginx does it: exact shares, evenly spread.
        total = 0.0
        for target in self.alias.targets:
            self._credit[target.version] += target.weight
            total += target.weight
        best = max(self._credit, key=self._credit.__getitem__)
        self._credit[best] -= total
        return best

    def _sticky(self, key: str) -> int:
        digest = hashlib.blake2b(f"{self.alias.label}\0{key}".encode(), digest_size=8).digest()
        at = int.from_bytes(digest, "big") / 2**64 * 100
        targets: list[Target] = sorted(self.alias.targets, key=lambda one: -one.version)
        for target in targets:  # the newest first, from 0 on: its part grows at one end alone
            at -= target.weight
            if at < 0:
                return target.version
        return targets[-1].version

    def observe(self, version: int, seconds: float, code: str | None) -> None:
        """A call of a version ended.

        Args:
            code: of its error; None: it was answered.
        """
        window = self.windows.get(version)
        if window is not None and (code is None or code in FAULTS):
            window.add(seconds, code is not None)

    def verdict(self) -> str | None:
        """Why a version is to be taken back; None: all are within their bounds."""
        bounds = self.alias.bounds
        if bounds is None or self._only is not None:
            return None
        main = self.windows[self.main].seen()
        for version, window in self.windows.items():
            if version == self.main:
                continue
            seen = window.seen()
            if seen.calls < bounds.calls:
                continue
            if bounds.errors is not None and _beyond(seen, bounds.errors):
                return (
                    f"{seen.errors} of the last {seen.calls} calls of version {version} failed, "
                    f"more than {bounds.errors:.1%}"
                )
            slow = seen.slowest_seconds
            if (
                bounds.latency is not None
                and main.calls >= bounds.calls
                and (slow > bounds.latency * main.slowest_seconds)
            ):
                return (
                    f"the slowest twentieth of version {version} takes {slow:.3f} s and more, over "
                    f"{bounds.latency:g} times the {main.slowest_seconds:.3f} s of version "
                    f"{self.main}"
                )
        return None


def _beyond(seen: Seen, share: float) -> bool:
    chance = SIGMAS * math.sqrt(share * (1 - share) * seen.calls)
    return seen.errors > share * seen.calls + chance

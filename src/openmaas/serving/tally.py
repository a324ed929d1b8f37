"""What a deployment has answered since it was started."""

from __future__ import annotations

import time

import msgspec

from openmaas.errors import Abandoned, OpenMaaSError
from openmaas.serving.call import Call


class Outcome(msgspec.Struct):
    count: int = 0
    ns: int = 0  # from submission to the last event, summed

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


class Tally(msgspec.Struct):
    success: Outcome = msgspec.field(default_factory=Outcome)
    fail: Outcome = msgspec.field(default_factory=Outcome)
    cancel: Outcome = msgspec.field(default_factory=Outcome)
    inferences: int = 0  # rows of ordinary networks, else requests, that succeeded
    last: int = 0  # when the last call ended: milliseconds since 1970

    def add(self, call: Call, error: OpenMaaSError | None) -> None:
        """Counts a call that ended."""
        ns = int((time.monotonic() - call.started) * 1e9)
        self.last = time.time_ns() // 1_000_000
        if error is None:
            self.success.add(ns)
            self.inferences += call.usage.rows or 1
        elif isinstance(error, Abandoned):
            self.cancel.add(ns)
        else:
            self.fail.add(ns)

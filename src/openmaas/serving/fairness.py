"""Who is next where callers must wait for a model.

The Virtual Token Counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024):
each tenant has a counter of the service that it got, divided by its weight, and the next request
is the oldest one of the tenant that got the least. A call counts from its dispatch with the output
that its tenant's calls usually have (the paper's length prediction), as many places that become
free at once would otherwise all be one tenant's. A tenant that comes back with nothing waiting
or running is lifted to those that wait, so that nobody saves up. Within a tenant: first come,
first served.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Literal, NamedTuple

from openmaas.inference import Attribute, Chat, Complete, Predict, Request, Tokenize

if TYPE_CHECKING:
    from openmaas.serving.call import Call

Priority = Literal["interactive", "batch"]
PRIORITIES: tuple[Priority, ...] = ("interactive", "batch")
Order = Literal["tokens", "arrival"]

OUTPUT_WEIGHT = 2.0  # an output token's service in input tokens', as in the paper
BATCH_EVERY = 16  # dispatches, of which one is a batch request's where one waits
NEWEST = 0.2  # what a tenant's newest call weighs in its usual output
COUNTERS = 10_000  # tenants; beyond that those that have nothing here are forgotten


class Share(NamedTuple):
    """Whose a request is."""

    tenant: str = ""
    weight: float = 1.0
    priority: Priority = "interactive"


class FairQueue:
    """Calls that wait for one deployment.

    Args:
        order: "tokens" as above, or "arrival": first come, first served, whoever comes.
    """

    def __init__(self, order: Order = "tokens") -> None:
        self._order = order
        self._lanes: dict[Priority, dict[str, deque[Call]]] = {one: {} for one in PRIORITIES}
        self._counters: dict[str, float] = {}
        self._usual: dict[str, float] = {}  # output of a call, by tenant
        self._running: Counter[str] = Counter()  # calls in the worker, by tenant
        self._level = 0.0  # of the counter that was the least at the last dispatch
        self._length = 0
        self._since_batch = 0

    def __len__(self) -> int:
        return self._length

    def push(self, call: Call) -> None:
        share = call.share
        lane = self._lanes[share.priority]
        tenant = "" if self._order == "arrival" else share.tenant
        waiting = lane.get(tenant)
        if waiting is None:
            if not self._running[tenant]:
                self._join(tenant)
            waiting = lane[tenant] = deque()
        waiting.append(call)
        self._length += 1

    def peek(self, *, batch: bool = True) -> Call | None:
        """The next call.

        Args:
            batch: whether it may be one of the batch lane.
        """
        lane = self._next_lane(batch)
        return lane[self._least(lane)][0] if lane else None

    def pop(self, *, batch: bool = True) -> Call:
        """Takes the next call out."""
        lane = self._next_lane(batch)
        self._since_batch = 0 if lane is self._lanes["batch"] else self._since_batch + 1
        tenant = self._least(lane)
        self._level = self._counters.get(tenant, 0.0)
        self._running[tenant] += 1
        return self._take(lane, tenant, 0)

    def finished(self, call: Call) -> None:
        """A call that was taken out is over: it counts with what it got."""
        tenant = "" if self._order == "arrival" else call.share.tenant
        usual = self._usual.get(tenant, call.tokens_out)
        self._usual[tenant] = usual + NEWEST * (call.tokens_out - usual)
        call.expected = 0.0
        self.charge(call)
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]

    def remove(self, call: Call) -> bool:
        """Takes a call out that nobody waits for any more; whether it was there."""
        share = call.share
        lane = self._lanes[share.priority]
        tenant = "" if self._order == "arrival" else share.tenant
        waiting = lane.get(tenant, ())
        for at, one in enumerate(waiting):
            if one is call:
                self._take(lane, tenant, at)
                return True
        return False

    def pushed_out_by(self, share: Share) -> Call | None:
        """Where the queue is full: the newest call of the tenant that has the most waiting by its
        weight, if that is more than the newcomer's tenant has. One of the batch lane pushes out
        none but its like."""
        if self._order == "arrival":
            return None
        lengths: dict[str, float] = {}
        newest: dict[str, Call] = {}
        lanes: tuple[Priority, ...] = PRIORITIES if share.priority == "interactive" else ("batch",)
        for priority in lanes:  # batch requests go first
            for tenant, waiting in self._lanes[priority].items():
                weighted = len(waiting) / waiting[-1].share.weight
                lengths[tenant] = lengths.get(tenant, 0.0) + weighted
                newest[tenant] = waiting[-1]
        own = lengths.get(share.tenant, 0.0) + 1 / share.weight
        most = max(lengths, key=lengths.__getitem__, default=share.tenant)
        return newest[most] if most != share.tenant and lengths[most] > own else None

    def pass_by(self, share: Share) -> None:
        """A call is dispatched without waiting: nobody waits."""
        tenant = "" if self._order == "arrival" else share.tenant
        if not self._running[tenant]:
            self._join(tenant)
        self._running[tenant] += 1

    def expected(self, call: Call) -> float:
        """Output tokens that a call will likely have."""
        usual = self._usual.get(call.share.tenant, 0.0)
        request = call.request
        if isinstance(request, Chat | Complete) and request.sampling.max_tokens is not None:
            return min(usual, request.sampling.max_tokens * places(request))
        return usual

    def charge(self, call: Call) -> None:
        """Adds what a call got, or will likely get, since the last time to its tenant's counter."""
        got = call.tokens_in + OUTPUT_WEIGHT * max(call.tokens_out, call.expected)
        share = call.share
        if got != call.charged and self._order == "tokens":
            more = (got - call.charged) / share.weight
            self._counters[share.tenant] = self._counters.get(share.tenant, 0.0) + more
            call.charged = got

    def _join(self, tenant: str) -> None:
        queued = [self._counters.get(one, 0.0) for lane in self._lanes.values() for one in lane]
        level = min(queued, default=self._level)
        if len(self._counters) >= COUNTERS:
            here = {one for lane in self._lanes.values() for one in lane} | self._running.keys()
            self._counters = {one: at for one, at in self._counters.items() if one in here}
            self._usual = {one: at for one, at in self._usual.items() if one in here}
        self._counters[tenant] = max(self._counters.get(tenant, 0.0), level)

    def _next_lane(self, may: bool) -> dict[str, deque[Call]]:
        interactive, batch = self._lanes["interactive"], self._lanes["batch"]
        if may and batch and (not interactive or self._since_batch >= BATCH_EVERY - 1):
            return batch
        return interactive

    def _least(self, lane: dict[str, deque[Call]]) -> str:
        return min(lane, key=lambda tenant: self._counters.get(tenant, 0.0))

    def _take(self, lane: dict[str, deque[Call]], tenant: str, at: int) -> Call:
        waiting = lane[tenant]
        call = waiting[at]
        del waiting[at]
        if not waiting:
            del lane[tenant]
        self._length -= 1
        return call


def places(request: Request) -> int:
    """Sequences that a request runs in the engine at once."""
    if isinstance(request, Chat):
        return request.n
    return request.n * len(request.prompts) if isinstance(request, Complete) else 1


def estimate(request: Request) -> int:
    """Its input in tokens (four bytes each) or rows, until the real number is known."""
    if isinstance(request, Predict):
        return request.rows
    if isinstance(request, Attribute):
        return request.steps
    if isinstance(request, Chat):
        texts = [message.content or "" for message in request.messages]
    elif isinstance(request, Complete):
        return sum(len(one) // 4 + 1 for one in request.prompts)
    elif isinstance(request, Tokenize):
        return len(request.inputs)
    else:
        texts = [str(one) for one in getattr(request, "inputs", ())]
    return sum(map(len, texts)) // 4 + 1

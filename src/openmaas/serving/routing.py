"""Which replica a call goes to: the one with the least in hand, or the one that knows its prompt.

An engine keeps the keys and values of prompts that it has seen; a prompt that begins alike is
answered sooner there. Prompts are remembered by hashes of their blocks, each with all before it,
and by tenant: no tenant's prompt says anything about another's.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openmaas.inference import Chat, Complete, Request

if TYPE_CHECKING:
    from openmaas.serving.call import Call
    from openmaas.serving.replica import Replica

BLOCK = 256  # characters
BLOCKS = 64  # of one prompt
REMEMBERED = 16_384  # blocks
OVERLOAD = 4  # places more than the idlest has: beyond that a known prompt is not worth the wait


class Prefixes:
    """Blocks of prompts, and the replica that saw each last."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, int] = OrderedDict()  # hash → the replica's id()

    def choose(self, call: Call, able: Sequence[Replica]) -> Replica:
        """Of replicas with room, the one for a call."""
        idlest = min(able, key=lambda one: one.taken)
        blocks = blocks_of(call.share.tenant, call.request)
        by_id = {id(one): one for one in able}
        found = idlest
        for block in reversed(blocks):
            known = by_id.get(self._seen.get(block, 0))
            if known is not None:
                found = known if known.taken - idlest.taken <= OVERLOAD else idlest
                break
        for block in blocks:
            self._seen[block] = id(found)
            self._seen.move_to_end(block)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return found

    def forget(self, replica: Replica) -> None:
        """It is gone, and all that its engine knew."""
        gone = id(replica)
        for block in [block for block, at in self._seen.items() if at == gone]:
            del self._seen[block]


def blocks_of(tenant: str, request: Request) -> list[bytes]:
    """A hash for each whole block that a prompt begins with, the longest last."""
    if isinstance(request, Chat):
        text = "\0".join(f"{one.role}\1{one.content or ''}" for one in request.messages)
    elif isinstance(request, Complete):
        first = request.prompts[0]
        text = first if isinstance(first, str) else " ".join(map(str, first))
    else:
        return []
    so_far = hashlib.blake2b(tenant.encode(), digest_size=16)
    found = []
    for at in range(0, min(len(text), BLOCK * BLOCKS) - BLOCK + 1, BLOCK):
        so_far.update(text[at : at + BLOCK].encode(errors="surrogatepass"))
        found.append(so_far.digest())
    return found

"""All that a policy looks for in a text."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from openmaas.redaction import detectors
from openmaas.redaction.entity import SHAPED, Entity
from openmaas.redaction.folding import Folded
from openmaas.redaction.merging import merged
from openmaas.redaction.own import Expressions, Words
from openmaas.redaction.policy import KINDS, RedactionPolicy

_MOST, _MOST_WORDS = 256, 500_000  # policies, and words of their lists, that are kept ready


class Finder:
    """Safe for use by several threads.

    Raises:
        InvalidRequest: an expression that cannot be compiled, or is a danger.
    """

    def __init__(self, policy: RedactionPolicy) -> None:
        self.kinds = frozenset(KINDS if policy.kinds is None else policy.kinds)
        self.expressions = Expressions(policy.patterns)
        self.words = Words(policy.words)
        self._detectors = detectors.of(self.kinds)

    def find(self, text: str, more: Sequence[Entity] = ()) -> list[Entity]:
        """Sorted, not overlapping (``merging.merged`` says which of several holds).

        Args:
            more: what a token-classification model found in the same text.

        Raises:
            InvalidRequest: a tenant's own expression took too long.
        """
        # A model's confidence is not the certainty of check digits.
        found = [
            Entity(one.start, one.end, one.kind, min(one.score, SHAPED))
            for one in more
            if one.kind in self.kinds and 0 <= one.start < one.end <= len(text)
        ]
        folded = Folded(text)
        for detector in self._detectors:
            found += folded.unfolded(
                one for one in detector.find(folded.text) if one.kind in self.kinds
            )
        found += self.expressions.find(text)
        found += self.words.find(text)
        return merged(text, found)


_ready: OrderedDict[bytes, Finder] = OrderedDict()
_lock = threading.Lock()


def finder(policy: RedactionPolicy) -> Finder:
    """The finder of a policy, made once for equal ones.

    Raises:
        InvalidRequest: ``param`` is ``redaction``; an expression that cannot be compiled, or is a
            danger.
    """
    key = msgspec.msgpack.encode((policy.kinds, policy.patterns, policy.words))
    with _lock:
        if key in _ready:
            _ready.move_to_end(key)
            return _ready[key]
    made = Finder(policy)  # outside the lock: trying expressions takes a while
    with _lock:
        _ready[key] = made
        while len(_ready) > 1 and (
            len(_ready) > _MOST or sum(len(one.words) for one in _ready.values()) > _MOST_WORDS
        ):
            _ready.popitem(last=False)
    return made

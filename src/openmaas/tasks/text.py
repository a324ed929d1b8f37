"""From token bytes to text that can be sent: whole characters, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Joins the bytes of tokens into characters.

    Byte-level vocabularies split characters (most emoji) across tokens: the first bytes of a
    character are kept until the rest has come. Bytes that no continuation can make valid
    become U+FFFD, as the Unicode standard recommends (section 3.9, maximal subparts).
    """

    def __init__(self) -> None:
        self._decode = _new_decoder("replace").decode

    def feed(self, piece: bytes) -> str:
        """The characters that ``piece`` completes."""
        return self._decode(piece)

    def finish(self) -> str:
        """What an answer that ends here leaves of an incomplete character: U+FFFD, or nothing."""
        return self._decode(b"", True)


class StopScanner:
    """Cuts an answer before the first stop string, however the text arrives in pieces.

    The first match is the one that is complete first, of those the longest: so the cut does not
    depend on where the pieces begin.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The text that may be sent now; sets ``stopped`` when a stop string is complete.
        What could be the beginning of one is held back."""
        if not self._stops or self.stopped:
            return "" if self.stopped else text
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        held = self._prefix_at_end(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held

    def _prefix_at_end(self, text: str) -> int:
        """Characters at the end of ``text`` that begin a stop string, as many as possible."""
        start = max(0, len(text) - self._longest + 1)
        for at in range(start, len(text)):
            tail = text[at:]
            if any(stop.startswith(tail) for stop in self._stops):
                return len(tail)
        return 0

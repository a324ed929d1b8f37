"""What tenants look for themselves: expressions, and lists of words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import regex

from openmaas.errors import InvalidRequest
from openmaas.redaction.entity import SHAPED, Entity

PATIENCE = 0.5  # seconds that one expression may take for one text
PROBE = 0.25  # seconds that it may take for one of the texts that it is tried on first
_PROBE_LENGTH, _MOST_PROBES = 2000, 40
_MOST_FOUND = 100_000  # of one label in one text

_RECURSIVE = re.compile(r"\(\?(?:R|[+-]?\d|&|P>)")

# Scripts that put no spaces between words: each character is taken for one.
_TOKEN = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    "|[^\\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
    "|[^\\w\\s]"
)
_JOINT = "\0"


class Expressions:
    """A tenant's regular expressions, of the module ``regex``, by label.

    Raises:
        InvalidRequest: one cannot be compiled, finds what is empty, calls itself, or is slow
            already on short texts.
    """

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self.patterns = {label: _compiled(label, one) for label, one in patterns.items()}

    def find(self, text: str) -> Iterator[Entity]:
        """
        Raises:
            InvalidRequest: one took longer than ``PATIENCE``: what it would have found is not
                known, and so the text may not pass.
        """
        for label, pattern in self.patterns.items():
            try:
                # Other threads run meanwhile, so that a slow expression keeps nobody else waiting.
                found = pattern.finditer(text, timeout=PATIENCE, concurrent=True)
                for number, match in enumerate(found):
                    if number == _MOST_FOUND:
                        raise _refused(label, "finds too much in one text")
                    if match.end() > match.start():
                        yield Entity(match.start(), match.end(), label, SHAPED)
            except TimeoutError:
                raise _refused(label, "takes too long") from None


class Words:
    """A tenant's lists, by label: whole words in any case, the longest where several begin."""

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        self._label: dict[str, str] = {}
        self._beginnings: set[str] = set()  # of entries of several words
        self.vocabulary: set[str] = set()  # words of any entry
        for label, entries in lists.items():
            for entry in entries:
                words = self.split(entry)
                self.vocabulary.update(words)
                if words:
                    self._label.setdefault(_JOINT.join(words), label)
                self._beginnings.update(_JOINT.join(words[:n]) for n in range(1, len(words)))

    def __len__(self) -> int:
        return len(self._label)

    def find(self, text: str) -> Iterable[Entity]:
        if not self._label:
            return
        tokens = [(one.start(), one.end(), one[0].casefold()) for one in _TOKEN.finditer(text)]
        for at, (start, end, key) in enumerate(tokens):
            best = (end, self._label[key]) if key in self._label else None
            while key in self._beginnings and at + 1 < len(tokens):
                at += 1
                _, end, word = tokens[at]
                key = f"{key}{_JOINT}{word}"
                if key in self._label:
                    best = end, self._label[key]
            if best is not None:
                yield Entity(start, best[0], best[1], SHAPED)

    @staticmethod
    def split(text: str) -> list[str]:
        """Its words, in the case in which words are compared."""
        return [word.casefold() for word in _TOKEN.findall(text)]


def _compiled(label: str, expression: str) -> regex.Pattern[str]:
    if _RECURSIVE.search(expression):
        raise _refused(label, "calls itself")
    try:
        pattern = regex.compile(expression)
        if pattern.fullmatch("", timeout=PROBE) is not None:
            raise _refused(label, "finds what is empty")
        for letter in sorted(set(f"{expression}a0 "))[:_MOST_PROBES]:
            # What is dangerous takes long where nearly everything matches, and the end does not.
            pattern.search(f"{letter * _PROBE_LENGTH}\0", timeout=PROBE, concurrent=True)
    except TimeoutError:
        raise _refused(label, "takes too long") from None
    except (regex.error, RecursionError, OverflowError, MemoryError, ValueError):
        raise _refused(label, "is no regular expression") from None
    return pattern


def _refused(label: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"redaction: the expression of {label!r} {why}.", param="redaction")

"""Log-probabilities of tokens where some of them made up a placeholder."""

from __future__ import annotations

from collections.abc import Sequence

from openmaas.inference import TokenLogprob
from openmaas.serving.redacting.treated import Treated


class Tokens:
    """The tokens of a text, which joined are what the caller reads. Those that wrote a placeholder
    become one: its text is what it stands for, its log-probability theirs added up, and there are
    no alternatives, which would be of a part of it.

    Args:
        outgoing: treats the text that the tokens make.
    """

    def __init__(self, outgoing: Treated) -> None:
        self._outgoing = outgoing
        self._held: list[TokenLogprob] = []
        self._told = ""  # what of the held tokens' text has come out

    def feed(self, tokens: Sequence[TokenLogprob]) -> list[TokenLogprob]:
        """Tokens of which it is known what they are."""
        made: list[TokenLogprob] = []
        for token in tokens:
            self._held.append(token)
            self._told += self._outgoing.feed(token.text)
            if not self._outgoing.held:
                made += self._flush()
        return made

    def end(self) -> list[TokenLogprob]:
        """The rest."""
        self._told += self._outgoing.end()
        return self._flush()

    def _flush(self) -> list[TokenLogprob]:
        tokens, text = self._held, self._told
        self._held, self._told = [], ""
        if text == "".join([token.text for token in tokens]):
            return tokens
        first, start = 0, 0
        while first < len(tokens) and text.startswith(tokens[first].text, start):
            start += len(tokens[first].text)
            first += 1
        last, end = len(tokens), len(text)
        while last > first and _ends(text, tokens[last - 1].text, start, end):
            end -= len(tokens[last - 1].text)
            last -= 1
        changed = tokens[first:last]
        if not changed:  # what was taken away was no token's whole
            first, start = max(0, first - 1), start - len(tokens[first - 1].text) if first else 0
            changed = tokens[first:last]
        return [*tokens[:first], _one(changed, text[start:end]), *tokens[last:]]


def _ends(text: str, piece: str, start: int, end: int) -> bool:
    return end - len(piece) >= start and text.startswith(piece, end - len(piece))


def _one(tokens: Sequence[TokenLogprob], text: str) -> TokenLogprob:
    known = [token.logprob for token in tokens if token.logprob is not None]
    return TokenLogprob(
        text=text,
        bytes=text.encode(errors="surrogatepass"),
        logprob=sum(known) if known else None,
    )

"""Texts from one language to another, sentence by sentence, with everything kept in its place
that is no language: paragraphs, placeholders, URLs, numbers."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator
from typing import NamedTuple

from openmaas.inference import Chat, Message, Sampling, Translate, Translated
from openmaas.tasks.asking import Model, together, written
from openmaas.tasks.languages import base, name_of
from openmaas.tasks.passages import passages, sentences

AT_ONCE = 32  # sentences that are put to the model together
CHATS_AT_ONCE = 8
SENTENCE_TOKENS = 120  # what is longer is cut: translators were trained on single sentences

# What must come out as it went in.
KEPT = re.compile(
    r"""https?://[^\s<>"']*[^\s<>"'.,;:!?)\]]   # a URL, without the sentence's own full stop
      | [\w.+-]+@[\w-]+(?:\.[\w-]+)+            # an e-mail address
      | \{\{[^{}\n]*\}\} | \$?\{[^{}\n]*\}      # {{name}}, ${name}, {0}
      | %\(\w+\)[sdf] | %\d*\$?[sdif](?!\w)     # %(name)s, %1$s, %d
      | </?[A-Za-z][^<>\n]*> | `[^`\n]+`        # <b>, `code`
      """,
    re.VERBOSE,
)
_NUMBER = re.compile(r"\d+(?:[.,:/\u00a0 ]\d+)*")
_DIGITS = re.compile(r"\d+")

Span = tuple[int, int]  # from and to, in characters


class Piece(NamedTuple):
    text: str
    score: float | None  # the model's mean probability of a token, in [0, 1]
    tokens: int  # that the score is the mean of, roughly: characters


async def translate(
    model: Model, text: str, source: str, target: str
) -> AsyncGenerator[Piece, None]:
    """The translation in pieces, in order; joined, they are the whole.

    Args:
        source, target: the model's own codes for a translator, any for a chat model.
    """
    translator = _Translator(model, source, target)
    parts = _parts(text, source, model)
    for at in range(0, len(parts), AT_ONCE):
        for piece in await translator.batch(parts[at : at + AT_ONCE]):
            yield piece


def score(pieces: list[Piece]) -> float | None:
    """The mean score of pieces, by their length."""
    known = [(piece.score, piece.tokens) for piece in pieces if piece.score is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _parts(text: str, source: str, model: Model) -> list[str]:
    """Sentences, line breaks and what else is between them; joined, they are the text."""
    most = SENTENCE_TOKENS
    if model.info.task == "translate" and model.info.context_tokens:
        # Their own tokens may be twice as many as the estimate: of small vocabularies.
        most = min(most, max(4, model.info.context_tokens // 2))
    parts: list[str] = []
    for line in text.splitlines(keepends=True):
        for sentence in sentences(line, base(source)):
            parts += passages(sentence, most, base(source))
    return parts


class _Translator:
    def __init__(self, model: Model, source: str, target: str) -> None:
        self._model = model
        self._source = source
        self._target = target

    async def batch(self, parts: list[str]) -> list[Piece]:
        """Translations of parts, each with the white space that was around it."""
        cores = [part.strip() for part in parts]
        wanted = [at for at, core in enumerate(cores) if any(map(str.isalpha, KEPT.sub("", core)))]
        made = await self._kept([cores[at] for at in wanted])
        pieces = [Piece(part, None, 0) for part in parts]
        for at, (text, value) in zip(wanted, made, strict=True):
            before, _, after = parts[at].partition(cores[at])
            pieces[at] = Piece(before + text + after, value, len(text))
        return pieces

    async def _kept(self, texts: list[str]) -> list[tuple[str, float | None]]:
        """Translations in which everything that is to be kept is there, once: at first the model
        is trusted to copy it; where it did not, what is between is translated alone."""
        made = await self._plain(texts)
        for spans in (_spans, _spans_and_numbers):
            wrong = [at for at, (text, _) in enumerate(made) if not faithful(texts[at], text)]
            if wrong:
                again = await together(self._around(texts[at], spans(texts[at])) for at in wrong)
                for at, one in zip(wrong, again, strict=True):
                    made[at] = one
        return made

    async def _around(self, text: str, spans: list[Span]) -> tuple[str, float | None]:
        """Translates what is between some spans, and puts those back as they were."""
        pieces: list[str] = []
        at = 0
        for start, end in [*spans, (len(text), len(text))]:
            pieces += [text[at:start], text[start:end]]
            at = end
        words = [
            index for index in range(0, len(pieces), 2) if any(map(str.isalpha, pieces[index]))
        ]
        made = await self._plain([pieces[index].strip() for index in words])
        values = [value for _, value in made if value is not None]
        for index, (translated, _) in zip(words, made, strict=True):
            before, _, after = pieces[index].partition(pieces[index].strip())
            pieces[index] = before + translated + after
        return "".join(pieces), sum(values) / len(values) if values else None

    async def _plain(self, texts: list[str]) -> list[tuple[str, float | None]]:
        if not texts:
            return []
        if self._model.info.task == "chat":
            return await self._by_chat(texts)
        answer = await self._model.ask(
            Translate(inputs=texts, source=self._source, target=self._target)
        )
        assert isinstance(answer, Translated)
        return [
            (text, None if value is None else min(1.0, math.exp(value)))
            for text, value in zip(answer.outputs, answer.logprobs, strict=True)
        ]

    async def _by_chat(self, texts: list[str]) -> list[tuple[str, float | None]]:
        gate = asyncio.Semaphore(CHATS_AT_ONCE)

        async def one(text: str) -> tuple[str, float | None]:
            words = (
                f"Translate this from {name_of(self._source)} to {name_of(self._target)}. "
                f"Write the translation only.\n\n{text}"
            )
            sampling = Sampling(max_tokens=4 * SENTENCE_TOKENS, temperature=0.0)
            chat = Chat(messages=[Message(role="user", content=words)], sampling=sampling)
            async with gate:
                return " ".join((await written(self._model, chat)).split()), None

        return await together(one(text) for text in texts)


def _spans(text: str) -> list[Span]:
    return [match.span() for match in KEPT.finditer(text)]


def _spans_and_numbers(text: str) -> list[Span]:
    kept = _spans(text)
    numbers = [match.span() for match in _NUMBER.finditer(text)]
    free = [
        (start, end)
        for start, end in numbers
        if not any(start < after and before < end for before, after in kept)
    ]
    return sorted(kept + free)


def faithful(text: str, translation: str) -> bool:
    """Whether a translation has every kept span and every number of a text, as often."""
    kept = sorted(KEPT.findall(text))
    return kept == sorted(KEPT.findall(translation)) and faithful_numbers(text, translation)


def faithful_numbers(text: str, translation: str) -> bool:
    """Whether the digits are the same. How they are grouped is the language's own: 3.50, 3,50."""
    return sorted("".join(_DIGITS.findall(text))) == sorted("".join(_DIGITS.findall(translation)))

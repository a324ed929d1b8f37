"""What the OpenVINO runtimes that write texts word by word share: sentences of many requests are
written together, greedily, and one that has ended leaves the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from openmaas.errors import InvalidRequest
from openmaas.inference import (
    Answer,
    Failure,
    ModelInfo,
    Request,
    Tokenize,
    Translate,
    Translated,
    Usage,
)
from openmaas.runtimes import translation_tokens as shared
from openmaas.runtimes.measured import Measured

CALL_TOKENS = 4096  # padded source tokens of one call, which bounds memory
CALL_SENTENCES = 64  # beyond so many, a step of all costs as much as two of half


class Sentence(msgspec.Struct):
    """One sentence on its way."""

    source: list[int]
    longest: int  # tokens of the answer, its end included: what loops without end stops there
    answer: list[int] = []
    logprob: float = 0.0  # of all of the answer's tokens

    def ended(self, end: int) -> bool:
        return self.answer[-1] == end or len(self.answer) >= self.longest


class Writer(Protocol):
    """One model: how it reads, writes and spells."""

    words: shared.Words  # of the source

    def read(self, text: str) -> list[int]:
        """A source's tokens, those that the model wants around it included."""

    def longest(self, source: int) -> int:
        """Tokens of an answer at most, its end included, by those of its source."""

    def write(self, sentences: list[Sentence]) -> None:
        """Writes all answers, which share one call of the reading network."""

    def spell(self, answer: list[int]) -> str:
        """The answer as text."""

    def close(self) -> None: ...


class GreedyTexts:
    """A ``BatchRuntime`` over one writer."""

    def __init__(self, writer: Writer, info: ModelInfo) -> None:
        self._writer = writer
        self._sentences: Measured[Translate, list[list[int]]] = Measured(self._read)
        self.info = info

    def size(self, request: Request) -> int:
        """Tokens of the sources, their ends included.

        Raises:
            InvalidRequest: an input is empty or too long, or the languages are not the model's.
        """
        if isinstance(request, Tokenize):
            return 1  # no engine call
        if not isinstance(request, Translate):
            raise InvalidRequest(f"this model {self.info.task}s only", param="model")
        return sum(len(source) for source in self._sentences(request))

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """One text an input, with the mean log-probability of its tokens and its end.

        Raises:
            InvalidRequest: as ``size``.
            RuntimeError: what OpenVINO raises.
        """
        asked = [request for request in requests if isinstance(request, Translate)]
        of_each = [
            [Sentence(source, self._writer.longest(len(source))) for source in sources]
            for sources in map(self._sentences, asked)
        ]
        for batch in batches([one for several in of_each for one in several]):
            self._writer.write(batch)
        answers = map(self._answer, asked, of_each)
        words = self._writer.words
        return [
            shared.split(words, request) if isinstance(request, Tokenize) else next(answers)
            for request in requests
        ]

    def close(self) -> None:
        """Frees the engine."""
        self._writer.close()

    def _answer(self, request: Translate, sentences: list[Sentence]) -> Answer:
        self._sentences.forget(request)
        return Translated(
            outputs=[self._writer.spell(one.answer) for one in sentences],
            logprobs=[one.logprob / len(one.answer) for one in sentences],
            usage=Usage(
                input_tokens=sum(len(one.source) for one in sentences),
                output_tokens=sum(len(one.answer) for one in sentences),
            ),
        )

    def _read(self, request: Translate) -> list[list[int]]:
        shared.language(request.source, self.info.source_languages, "source")
        shared.language(request.target, self.info.target_languages, "target")
        if not request.inputs:
            raise InvalidRequest(f"there is nothing to {self.info.task}", param="input")
        context = self.info.context_tokens
        sources = []
        for index, text in enumerate(request.inputs):
            shared.check_text(text, index, context)
            source = self._writer.read(text)
            shared.check_length(len(source), index, context)
            sources.append(source)
        return sources


def batches(sentences: list[Sentence]) -> Iterator[list[Sentence]]:
    """The sentences of each call, longest first, so that there is little padding."""
    left = sorted(sentences, key=lambda one: -len(one.source))
    while left:
        most = max(1, min(CALL_SENTENCES, CALL_TOKENS // len(left[0].source)))
        yield left[:most]
        left = left[most:]

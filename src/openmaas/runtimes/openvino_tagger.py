"""Token classifiers in OpenVINO: spans of texts, such as names, by a logit a token and label.

A text that is longer than the context is read in windows that overlap by a quarter. Of two windows
each token believes the one whose end is further away, so that every token is read with some text
on both sides and nothing goes unread.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, InvalidRequest
from openmaas.inference import Answer, Failure, ModelInfo, Request, Tag, Tagged, Tokenize, Usage
from openmaas.runtimes import openvino_cpu as cpu
from openmaas.runtimes import openvino_texts as texts
from openmaas.runtimes.measured import Measured
from openmaas.runtimes.openvino_calls import PaddedCalls, Text
from openmaas.runtimes.openvino_texts import CHARACTERS_PER_TOKEN, Loaded
from openmaas.runtimes.token_spans import Scheme, Token

OVERLAP = 4  # a window shares one part in so many with the next
LEAST_ROOM = 2 * OVERLAP  # tokens of text in a context, for there to be windows


class Window(NamedTuple):
    """A part of a text that fits the context."""

    text: Text
    before: int  # special tokens in front of it
    kept: tuple[int, int]  # which of the text's own tokens it is believed about …
    start: int  # … and which one is the first in it


class Read(NamedTuple):
    """A text in tokens."""

    text: str
    tokens: list[Token]  # without special ones
    windows: list[Window]
    usage: int  # tokens, special ones too, each once


def open(folder: Path, options: dict[str, Any]) -> OpenVinoTagger:
    """Loads a token classifier and lets it tag a probe.

    Args:
        folder: as ``openvino_texts.load``; the graph answers, for each token, a logit for each of
            the manifest's ``labels``.
        options: as there; with ``truncate`` no text is read further than the context.

    Raises:
        ConfigurationError: an option is unknown or out of range.
        ArtifactRefused: a part is missing, damaged or of another kind.
    """
    runtime = OpenVinoTagger(texts.load(folder, options))
    runtime.run([Tag(inputs=["a probe"])])
    return runtime


class OpenVinoTagger:
    """A ``BatchRuntime`` over one token classifier."""

    def __init__(self, loaded: Loaded) -> None:
        self._tokenizer = loaded.tokenizer
        self._context = loaded.context
        self._truncate = loaded.truncate
        self._calls = PaddedCalls(loaded.compiled, loaded.context, by_token=True)
        labels = cpu.labels(loaded.manifest)
        if len(labels) != self._calls.width:
            raise ArtifactRefused(
                f"the network answers {self._calls.width} logits for {len(labels)} labels"
            )
        self._scheme = Scheme(labels)
        self._read: Measured[Tag, list[Read]] = Measured(self._read_all)
        self.info = ModelInfo(
            task="tag",
            runtime="openvino_tagger",
            context_tokens=loaded.context,
            labels=labels,
        )

    def size(self, request: Request) -> int:
        """Tokens that the network reads, those that two windows share twice; they are kept for
        ``run``.

        Raises:
            InvalidRequest: there is no input, or it is no request for spans.
        """
        if isinstance(request, Tokenize):
            return 1  # no engine call
        if not isinstance(request, Tag):
            raise InvalidRequest("this model finds spans in texts only", param="model")
        return sum(len(window.text.ids) for one in self._read(request) for window in one.windows)

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Spans of each text, in the order of the inputs.

        Raises:
            InvalidRequest: as ``size``.
            RuntimeError: what OpenVINO raises.
        """
        asked = [request for request in requests if isinstance(request, Tag)]
        read = [self._read(request) for request in asked]
        windows = [window for of_one in read for one in of_one for window in one.windows]
        logits = iter(self._logits(windows))
        tagged = []
        for request, of_one in zip(asked, read, strict=True):
            outputs = []
            for one in of_one:
                shares = _joined([next(logits) for _ in one.windows], self._calls.width)
                outputs.append(
                    self._scheme.spans(one.text, one.tokens, shares, request.aggregation)
                )
            self._read.forget(request)
            used = Usage(input_tokens=sum(one.usage for one in of_one))
            tagged.append(Tagged(outputs=outputs, usage=used))
        answers = iter(tagged)
        return [
            texts.split(self._tokenizer, request)
            if isinstance(request, Tokenize)
            else next(answers)
            for request in requests
        ]

    def close(self) -> None:
        """Frees the engine."""
        self._calls.close()

    def _logits(self, windows: list[Window]) -> list[NDArray[np.float32]]:
        """Of each window [kept tokens, labels]."""
        found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(windows)
        for batch, rows in self._calls.run([window.text for window in windows]):
            for row, index in zip(rows, batch, strict=True):
                window = windows[index]
                shift = window.before - window.start
                found[index] = row[window.kept[0] + shift : window.kept[1] + shift].copy()
        return found

    # --- texts in windows ----------------------------------------------------------------------

    def _read_all(self, tag: Tag) -> list[Read]:
        if not tag.inputs:
            raise InvalidRequest("there is nothing to read", param="input")
        cut = tag.truncate or self._truncate
        return [self._text(text, index, cut) for index, text in enumerate(tag.inputs)]

    def _text(self, text: str, index: int, truncate: bool) -> Read:
        seen = text[: self._context * CHARACTERS_PER_TOKEN] if truncate else text
        encoding = self._tokenizer.encode(seen)
        own = [at for at, part in enumerate(encoding.sequence_ids) if part is not None]
        first, end = (own[0], own[-1] + 1) if own else (len(encoding.ids), len(encoding.ids))
        before, ids, after = encoding.ids[:first], encoding.ids[first:end], encoding.ids[end:]
        room = self._context - len(before) - len(after)
        if truncate:
            ids = ids[: max(0, room)]
        if len(ids) > room and room < LEAST_ROOM:
            raise InvalidRequest(
                f"input {index} has {len(ids)} tokens, the limit is {room}", param="input"
            )
        offsets, words = encoding.offsets[first:end], encoding.word_ids[first:end]
        return Read(
            text=text,
            tokens=[
                Token(*offset, word)
                for offset, word in zip(offsets[: len(ids)], words[: len(ids)], strict=True)
            ],
            windows=[
                Window(
                    Text([*before, *ids[start : start + room], *after]), len(before), kept, start
                )
                for start, kept in windows(len(ids), room)
            ],
            usage=len(before) + len(ids) + len(after),
        )


def windows(tokens: int, room: int) -> list[tuple[int, tuple[int, int]]]:
    """Where each window of ``room`` tokens begins, and (start, end) of what it is believed about;
    together that is every token, once."""
    if not tokens:
        return []
    starts = [0]
    while starts[-1] + room < tokens:
        starts.append(min(starts[-1] + room - room // OVERLAP, tokens - room))
    cuts = [
        0,
        *((start + former + room) // 2 for former, start in pairwise(starts)),
        tokens,
    ]
    return list(zip(starts, pairwise(cuts), strict=True))


def _joined(parts: list[NDArray[np.float32]], labels: int) -> NDArray[np.float32]:
    """Probabilities [tokens, labels] of a whole text."""
    if not parts:
        return np.empty((0, labels), np.float32)
    logits = np.concatenate(parts)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(1, keepdims=True)
    return shares

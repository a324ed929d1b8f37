"""Events of a call as its caller may see them: placeholders are what they stand for again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from openmaas.inference import (
    Delta,
    Event,
    FinishReason,
    Loglikelihoods,
    Predicted,
    Tagged,
    Tensor,
    TokenLogprob,
    ToolCallDelta,
    Translated,
)
from openmaas.serving.redacting.logprobs import Tokens
from openmaas.serving.redacting.places import Places
from openmaas.serving.redacting.requests import SHARED, elements, with_elements
from openmaas.serving.redacting.searching import INLINE
from openmaas.serving.redacting.treated import Treated


class New(Protocol):
    """Begins the treatment of one text."""

    def __call__(self, place: int, *, json: bool = False, again: bool = False) -> Treated:
        """
        Args:
            place: see ``requests.Change``.
            json: it is written JSON.
            again: what is found in it was counted before: it is of a text's tokens.
        """


class Answers:
    """Of one call; a stream is handed on as it comes, but for what may be half a placeholder.

    Args:
        new: see there.
        json: the text of an answer is held to a schema.
        places: of a Tag's texts.
        labels: that the model was trained to answer with: they stand for nothing of a request.
        aside: what is made up may take long to find, and so is looked for beside the event loop.
    """

    def __init__(
        self,
        new: New,
        *,
        json: bool = False,
        places: Sequence[Places] = (),
        labels: frozenset[str] = frozenset(),
        aside: bool = False,
    ) -> None:
        self._new = new
        self._json = json
        self._places = places
        self._labels = labels
        self._aside = aside
        self._choices: dict[int, _Choice] = {}

    async def told(self, events: Sequence[Event]) -> list[Event]:
        """What can be told of events that came together, which may be nothing yet.

        Raises:
            PersonalData: a model made some up, and the policy refuses them.
        """
        if self._aside or sum(map(_size, events)) > INLINE:
            return await asyncio.to_thread(self, events)
        return self(events)

    def __call__(self, events: Sequence[Event]) -> list[Event]:
        """As ``told``, at once."""
        made: list[Event] = []
        touched: dict[int, _Choice] = {}
        for event in events:
            if isinstance(event, Delta):
                choice = self._choices.get(event.index)
                if choice is None:
                    choice = _Choice(event.index, self._new, self._json)
                    self._choices[event.index] = choice
                choice.take(event)
                touched[event.index] = choice
                continue
            for choice in touched.values():
                made += choice.tell()
            touched = {}
            made.append(self._last(event))
        for choice in touched.values():
            made += choice.tell()
        return made

    def _last(self, event: Event) -> Event:
        if isinstance(event, Translated):
            outputs = [self._whole(text) for text in event.outputs]
            return msgspec.structs.replace(event, outputs=outputs)
        if isinstance(event, Predicted):
            return msgspec.structs.replace(event, outputs=[*map(self._tensor, event.outputs)])
        if isinstance(event, Tagged):
            pairs = zip(self._places, event.outputs, strict=True) if self._places else ()
            found = [places.spans(spans) for places, spans in pairs] or event.outputs
            return msgspec.structs.replace(event, outputs=found)
        if isinstance(event, Loglikelihoods) and event.details:
            return msgspec.structs.replace(event, details=[*map(self._tokens, event.details)])
        return event

    def _whole(self, text: str, place: int = SHARED) -> str:
        outgoing = self._new(place)
        return outgoing.feed(text) + outgoing.end()

    def _tokens(self, given: list[TokenLogprob]) -> list[TokenLogprob]:
        tokens = Tokens(self._new(SHARED))
        return tokens.feed(given) + tokens.end()

    def _tensor(self, tensor: Tensor) -> Tensor:
        if tensor.datatype != "BYTES":
            return tensor
        found = elements(tensor)
        rows = tensor.shape[0] if tensor.shape else 1
        of_row = max(1, len(found) // max(1, rows))
        made = [
            text if text in self._labels else self._whole(text, at // of_row)
            for at, text in enumerate(found)
        ]
        return tensor if made == found else with_elements(tensor, made)


def _size(event: Event) -> int:
    """Characters, roughly."""
    if isinstance(event, Delta):
        return len(event.text) + sum(len(part.arguments) for part in event.tool_calls or ())
    if isinstance(event, Translated):
        return sum(map(len, event.outputs))
    if isinstance(event, Predicted):
        return sum(len(one.data) for one in event.outputs if one.datatype == "BYTES")
    return 0


class _Choice:
    """What came of one choice since it was last told of."""

    def __init__(self, index: int, new: New, json: bool) -> None:
        self._index = index
        self._new = new
        self._text = new(SHARED, json=json)
        self._json = json
        self._tokens: Tokens | None = None
        self._calls: dict[int, Treated] = {}  # arguments of tool calls
        self._taken: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._parts: list[ToolCallDelta] = []
        self._finish: FinishReason | None = None
        self._covered = 0  # tokens of the output
        self._prompt = 0

    def take(self, delta: Delta) -> None:
        if delta.text:
            self._taken.append(delta.text)
        if delta.logprobs:
            self._logprobs += delta.logprobs
        if delta.tool_calls:
            self._parts += delta.tool_calls
        self._finish = delta.finish or self._finish
        self._covered += delta.tokens
        self._prompt += delta.input_tokens

    def tell(self) -> list[Delta]:
        """A delta with all that may be told, and the one that finishes."""
        text = self._text.feed("".join(self._taken)) if self._taken else ""
        self._taken = []
        calls = [self._argued(part) for part in self._parts]
        self._parts = []
        logprobs = self._told_tokens()
        if self._finish is not None:
            text += self._text.end()
            for number, outgoing in self._calls.items():
                rest = outgoing.end()
                if rest:
                    calls.append(ToolCallDelta(index=number, arguments=rest))
            if self._tokens is not None:
                logprobs += self._tokens.end()
        calls = [part for part in calls if part.arguments or part.id is not None]
        made: list[Delta] = []
        if text or calls or logprobs:
            made.append(
                Delta(
                    index=self._index,
                    text=text,
                    logprobs=logprobs or None,
                    tool_calls=calls or None,
                    tokens=self._covered,
                    input_tokens=self._prompt,
                )
            )
            self._covered = self._prompt = 0
        if self._finish is not None:
            made.append(
                Delta(
                    index=self._index,
                    finish=self._finish,
                    tokens=self._covered,
                    input_tokens=self._prompt,
                )
            )
        return made

    def _argued(self, part: ToolCallDelta) -> ToolCallDelta:
        outgoing = self._calls.get(part.index)
        if outgoing is None:
            outgoing = self._calls[part.index] = self._new(SHARED, json=True)
        arguments = outgoing.feed(part.arguments) if part.arguments else ""
        return msgspec.structs.replace(part, arguments=arguments)

    def _told_tokens(self) -> list[TokenLogprob]:
        if not self._logprobs:
            return []
        if self._tokens is None:
            self._tokens = Tokens(self._new(SHARED, json=self._json, again=True))
        given, self._logprobs = self._logprobs, []
        return self._tokens.feed(given)

"""Continuous batching for language models: sequences join and leave between engine steps."""

from __future__ import annotations

import logging
from typing import cast

from openmaas.errors import EngineFailed, InvalidRequest, OpenMaaSError
from openmaas.frames import Cancelled, Emit, ToGateway
from openmaas.inference import Chat, Complete, Loglikelihood, Request, Tokenize
from openmaas.runtimes.base import Scores, Step, TokenRuntime
from openmaas.serving.batching import failure
from openmaas.serving.inbox import Inbox, Line
from openmaas.tasks.chat import TemplateRenderer
from openmaas.tasks.generation import Generation, Part
from openmaas.tasks.likelihood import Likelihood, Reading, split

log = logging.getLogger(__name__)


def serve(runtime: TokenRuntime, inbox: Inbox, line: Line) -> None:
    """The worker's main loop: admit → drop → step → tell. Never returns."""
    loop = Stepper(runtime)
    while True:
        for id, request in inbox.take(block=not runtime.busy()):
            loop.admit(id, request)
        for id in inbox.cancelled():
            loop.drop(id)
        for step in runtime.step():
            loop.advance(step)
        if loop.frame:
            frame, loop.frame = loop.frame, []
            line.send(frame)


class Stepper:
    """Which sequences belong to which request, and the news for the gateway."""

    def __init__(self, runtime: TokenRuntime) -> None:
        self.frame: ToGateway = []
        self._runtime = runtime
        self._templates = TemplateRenderer()
        self._next = 0
        self._requests: dict[int, tuple[Generation | Likelihood, list[int]]] = {}
        self._owner: dict[int, int] = {}  # sequence → request

    def admit(self, id: int, request: Request) -> None:
        """Starts a request's sequences; one that cannot start is answered at once."""
        sequences: list[int] = []
        try:
            if isinstance(request, Tokenize):
                self.frame.append(Emit(id=id, event=split(self._runtime, request)))
                return
            generation: Generation | Likelihood
            if isinstance(request, Loglikelihood):
                generation = Likelihood(self._runtime, request, self._templates)
            elif isinstance(request, Chat | Complete):
                generation = Generation(self._runtime, request, self._templates)
            else:
                raise InvalidRequest("this model writes text; it does nothing else")
            for part in generation.sequences:
                self._next += 1
                self._start(self._next, part)
                sequences.append(self._next)
                self._owner[self._next] = id
                generation.bind(self._next, part)  # type: ignore[arg-type]  # its own part
        except OpenMaaSError as error:
            self._forget(sequences)
            self.frame.append(Emit(id=id, event=failure(error)))
            return
        self._requests[id] = (generation, sequences)

    def _start(self, sequence: int, part: Part | Reading) -> None:
        if isinstance(part, Reading):
            cast(Scores, self._runtime).score(
                sequence, part.prompt, part.start, part.alternatives, part.salt
            )
        else:
            self._runtime.add(sequence, part.prompt, part.sampling, echo=part.echo)

    def drop(self, id: int) -> None:
        """Nobody waits for a request: its sequences leave the engine."""
        if id in self._requests:
            self._forget(self._requests.pop(id)[1])
        self.frame.append(Cancelled(id=id))

    def advance(self, step: Step) -> None:
        """Turns what the engine chose into text, and ends what is done."""
        id = self._owner.get(step.id)
        if id is None:
            return
        generation, sequences = self._requests[id]
        if step.failed:
            self._end(id, sequences)
            kind = InvalidRequest if step.invalid else EngineFailed
            error = kind(f"the engine gave this request up: {step.finish}")
            self.frame.append(Emit(id=id, event=failure(error)))
            return
        for delta in generation.advance(step):
            self.frame.append(Emit(id=id, event=delta))
        for sequence in generation.dropped():  # a stop string was met: the engine need not go on
            self._forget([sequence])
        if generation.done:
            self._end(id, sequences)
            self.frame.append(Emit(id=id, event=generation.answer))

    def _end(self, id: int, sequences: list[int]) -> None:
        del self._requests[id]
        self._forget(sequences)

    def _forget(self, sequences: list[int]) -> None:
        for sequence in sequences:
            if self._owner.pop(sequence, None) is not None:
                self._runtime.cancel(sequence)

"""How likely a language model is to answer with given texts, and how it splits texts."""

from __future__ import annotations

from openmaas.errors import EngineFailed, InvalidRequest
from openmaas.inference import (
    Delta,
    Failure,
    Loglikelihood,
    Loglikelihoods,
    Sampling,
    Tokenize,
    Tokenized,
    Usage,
)
from openmaas.tasks.chat import TemplateRenderer
from openmaas.tasks.engine import Progress, Tokens
from openmaas.tasks.generation import Part


def split(engine: Tokens, request: Tokenize) -> Tokenized:
    """Tokens of each text as a raw prompt, the beginning-of-text token among them."""
    outputs = [
        [(token, engine.piece(token)) for token in engine.start() + engine.encode(text)]
        for text in request.inputs
    ]
    return Tokenized(outputs=outputs, usage=Usage(input_tokens=sum(map(len, outputs))))


class Likelihood:
    """One sequence an answer: the conversation, then the answer, read and not continued.

    The template ends where the model's own answer would begin, so an answer's tokens are those
    of its text alone.

    Raises:
        InvalidRequest: it does not fit the context, or the engine cannot score a prompt.
    """

    def __init__(self, engine: Tokens, request: Loglikelihood, templates: TemplateRenderer) -> None:
        if "echo_logprobs" not in engine.info.options:
            raise InvalidRequest(
                f"runtime {engine.info.runtime} cannot say how likely a given answer is",
                param="model",
            )
        template = templates.render(
            engine.chat_template(), request.messages, [], engine.special_tokens()
        )
        context = engine.encode(template)
        sampling = Sampling(max_tokens=1, temperature=0.0, logprobs=0)
        self.sequences: list[Part] = []
        self._counts: list[int] = []
        for index, answer in enumerate(request.answers):
            tokens = engine.encode(answer)
            if not tokens:
                raise InvalidRequest(f"label {index} is empty", param="labels")
            prompt = context + tokens
            if len(prompt) >= engine.info.context_tokens:
                raise InvalidRequest(
                    f"the text and a label are {len(prompt)} tokens; this model takes "
                    f"{engine.info.context_tokens}",
                    param="input",
                )
            self._counts.append(len(tokens))
            self.sequences.append(Part(prompt, sampling, True, index))
        self._logprobs: list[float | None] = [None] * len(self.sequences)
        self._complete = True
        self._parts: dict[int, Part] = {}
        self._ended: list[int] = []
        self._input_tokens = len(context) + sum(self._counts)
        self._cached = 0

    def bind(self, sequence_id: int, part: Part) -> None:
        """Says under which id the engine runs a part."""
        self._parts[sequence_id] = part

    def advance(self, step: Progress) -> list[Delta]:
        """Takes the log-probabilities of a prompt that was read; there is no text to tell."""
        part = self._parts[step.id]
        self._cached = max(self._cached, step.cached_tokens)
        if self._logprobs[part.index] is None and step.tokens:
            count = self._counts[part.index]
            own = step.tokens[len(part.prompt) - count : len(part.prompt)]
            values = [token.logprob for token in own if token.logprob is not None]
            self._logprobs[part.index] = sum(values)
            self._complete = self._complete and len(values) == count
            if step.finish is None:
                self._ended.append(step.id)
        return []

    def dropped(self) -> list[int]:
        """Sequences that need not go on, since the last call."""
        gone, self._ended = self._ended, []
        return gone

    @property
    def done(self) -> bool:
        return all(value is not None for value in self._logprobs)

    @property
    def answer(self) -> Loglikelihoods | Failure:
        """The event that ends the request. The conversation counts once."""
        if not self._complete:
            return Failure(
                code=EngineFailed.code,
                message="the engine left out log-probabilities of the prompt",
            )
        return Loglikelihoods(
            logprobs=[value for value in self._logprobs if value is not None],
            tokens=self._counts,
            usage=Usage(input_tokens=self._input_tokens, cached_tokens=self._cached),
        )

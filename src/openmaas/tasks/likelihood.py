"""How likely a language model is to answer with given texts, and how it splits texts."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec

from openmaas.errors import EngineFailed, InvalidRequest, UnsupportedParameter
from openmaas.inference import (
    Delta,
    Failure,
    Loglikelihood,
    Loglikelihoods,
    Sampling,
    Tokenize,
    Tokenized,
    TokenLogprob,
    Usage,
)
from openmaas.tasks.chat import TemplateRenderer
from openmaas.tasks.engine import Progress, Sampled, Tokens
from openmaas.tasks.generation import Part

MAX_ALTERNATIVES = 20


class Reading(msgspec.Struct, frozen=True):
    """One sequence for an engine that reads texts without continuing them (``Scores``)."""

    prompt: list[int]
    start: int  # the first token that is scored
    alternatives: int
    salt: str  # sequences with the same one may share their beginnings
    index: int


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
        UnsupportedParameter: it knows no alternatives to a prompt's tokens.
    """

    def __init__(self, engine: Tokens, request: Loglikelihood, templates: TemplateRenderer) -> None:
        check(engine, request)
        self._engine = engine
        self._detailed = request.alternatives is not None
        template = templates.render(
            engine.chat_template(), request.messages, [], engine.special_tokens()
        )
        context = engine.encode(template)
        self.sequences: list[Part | Reading] = []
        self._counts: list[int] = []
        salt = request.cache_salt or secrets.token_hex(16)
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
            self.sequences.append(_sequence(engine, request, prompt, len(context), salt, index))
        self._tokens: list[Sequence[Sampled] | None] = [None] * len(self.sequences)
        self._parts: dict[int, Part | Reading] = {}
        self._ended: list[int] = []
        self._input_tokens = len(context) + sum(self._counts)
        self._cached = 0

    def bind(self, sequence_id: int, part: Part | Reading) -> None:
        """Says under which id the engine runs a part."""
        self._parts[sequence_id] = part

    def advance(self, step: Progress) -> list[Delta]:
        """Takes the log-probabilities of a prompt that was read; there is no text to tell."""
        part = self._parts[step.id]
        self._cached = max(self._cached, step.cached_tokens)
        if self._tokens[part.index] is None and step.tokens:
            count = self._counts[part.index]
            # An engine that reads tells of the answer alone, one that continues of all it has.
            end = count if isinstance(part, Reading) else len(part.prompt)
            self._tokens[part.index] = step.tokens[end - count : end]
            if step.finish is None:
                self._ended.append(step.id)
        return []

    def dropped(self) -> list[int]:
        """Sequences that need not go on, since the last call."""
        gone, self._ended = self._ended, []
        return gone

    @property
    def done(self) -> bool:
        return all(tokens is not None for tokens in self._tokens)

    @property
    def answer(self) -> Loglikelihoods | Failure:
        """The event that ends the request. The conversation counts once."""
        read = [tokens or () for tokens in self._tokens]
        known = [[one.logprob for one in tokens if one.logprob is not None] for tokens in read]
        if [len(values) for values in known] != self._counts:
            return Failure(
                code=EngineFailed.code,
                message="the engine left out log-probabilities of the prompt",
            )
        return Loglikelihoods(
            logprobs=[sum(values) for values in known],
            tokens=self._counts,
            usage=Usage(input_tokens=self._input_tokens, cached_tokens=self._cached),
            details=[[self._told(one) for one in tokens] for tokens in read]
            if self._detailed
            else [],
        )

    def _told(self, token: Sampled) -> TokenLogprob:
        return TokenLogprob(
            text=self._text(token.id),
            bytes=self._engine.piece(token.id),
            logprob=token.logprob,
            alternatives=[
                (self._text(other), self._engine.piece(other), logprob)
                for other, logprob in token.alternatives
            ],
        )

    def _text(self, token: int) -> str:
        return self._engine.piece(token).decode(errors="replace")


def check(engine: Tokens, request: Loglikelihood) -> None:
    """
    Raises:
        InvalidRequest: the engine cannot score a prompt.
        UnsupportedParameter: it knows no, or not so many, alternatives to a prompt's tokens.
    """
    info = engine.info
    if not {"echo_logprobs", "top_echo_logprobs"} & set(info.options):
        raise InvalidRequest(
            f"runtime {info.runtime} cannot say how likely a given answer is", param="model"
        )
    wanted = request.alternatives or 0
    if wanted and "top_echo_logprobs" not in info.options:
        raise UnsupportedParameter(
            f"runtime {info.runtime} knows no alternatives to the tokens of a given answer",
            param="alternatives",
        )
    if not 0 <= wanted <= MAX_ALTERNATIVES:
        raise InvalidRequest(f"0 to {MAX_ALTERNATIVES} alternatives", param="alternatives")


def _sequence(
    engine: Tokens, request: Loglikelihood, prompt: list[int], start: int, salt: str, index: int
) -> Part | Reading:
    alternatives = request.alternatives or 0
    # Labels alone are left to the engine that continues texts, if it can: a second network, which
    # reads, takes memory from the first time on that it is needed.
    wanted = request.cache_salt or alternatives or "echo_logprobs" not in engine.info.options
    if hasattr(engine, "score") and "top_echo_logprobs" in engine.info.options and wanted and start:
        return Reading(prompt, start, alternatives, salt, index)
    sampling = Sampling(max_tokens=1, temperature=0.0, logprobs=alternatives)
    return Part(prompt, sampling, True, index)

"""One Chat or Complete request over an engine that works in sequences of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from openmaas.errors import InvalidRequest
from openmaas.inference import Chat, Complete, Delta, Finished, Sampling, Tool, Usage
from openmaas.tasks import forced, schema
from openmaas.tasks.chat import TemplateRenderer
from openmaas.tasks.choice import Calls, Choice, Piece
from openmaas.tasks.engine import Progress, Tokens
from openmaas.tasks.tools import MARKERS, parser_for


class Part(msgspec.Struct, frozen=True):
    """One sequence to start in the engine; its answer becomes choice ``index``."""

    prompt: list[int]
    sampling: Sampling
    echo: bool
    index: int


class Generation:
    """Sequences to start, and what their steps say to the caller.

    Samples of one prompt are seeded with seed, seed + 1, … so that they differ and repeat.
    ``max_tokens`` ends at the model's context window, as does an answer without it.

    Raises:
        InvalidRequest: the prompt does not fit, or the request makes no sense for this model.
    """

    def __init__(
        self, engine: Tokens, request: Chat | Complete, templates: TemplateRenderer
    ) -> None:
        self._engine = engine
        self._templates = templates
        self._request = request
        self._piece: Piece = engine.piece
        self._new_calls: Callable[[], Calls] | None = None
        self._sampling = request.sampling
        self._echoes = isinstance(request, Complete) and request.echo
        if isinstance(request, Chat):
            prompts = [self._conversation(request)]
        else:
            prompts = [self._raw(prompt) for prompt in request.prompts]
        if self._sampling.json_schema is not None:
            schema.check(self._sampling.json_schema)
        self._input_tokens = sum(map(len, prompts))
        self._untold = [len(prompt) for prompt in prompts]  # until its first delta
        self._cached = 0
        self._choices: dict[int, Choice] = {}
        self._unfinished = request.n * len(prompts)
        self._dropped: list[int] = []
        self.sequences = [
            self._part(prompt, number * request.n + sample, sample)
            for number, prompt in enumerate(prompts)
            for sample in range(request.n)
        ]

    def bind(self, sequence_id: int, part: Part) -> None:
        """Says under which id the engine runs a part."""
        sampling = self._sampling
        choice = Choice(
            part.index,
            self._piece,
            stops=sampling.stop,
            calls=self._new_calls() if self._new_calls is not None else None,
            logprobs=sampling.logprobs is not None,
            echoed=len(part.prompt) if part.echo else 0,
            prelude=self._prelude(part),
        )
        self._choices[sequence_id] = choice

    def advance(self, step: Progress) -> list[Delta]:
        """What one step of one sequence says; empty for a sequence that is done."""
        choice = self._choices[step.id]
        if choice.done:
            return []
        if step.cached_tokens > self._cached:
            self._cached = step.cached_tokens
        made = choice.advance(step.tokens, step.finish)
        prompt = choice.index // self._request.n
        if made and self._untold[prompt]:
            made[0] = msgspec.structs.replace(made[0], input_tokens=self._untold[prompt])
            self._untold[prompt] = 0
        if choice.done:
            self._unfinished -= 1
            if step.finish is None:
                self._dropped.append(step.id)
        return made

    def dropped(self) -> list[int]:
        """Sequences that met a stop string since the last call; the engine need not go on."""
        gone, self._dropped = self._dropped, []
        return gone

    @property
    def done(self) -> bool:
        return self._unfinished == 0

    @property
    def answer(self) -> Finished:
        """The event that ends the request."""
        return Finished(usage=self.usage)

    @property
    def usage(self) -> Usage:
        """Prompts count once, however many samples are drawn from them."""
        return Usage(
            input_tokens=self._input_tokens,
            output_tokens=sum(choice.tokens for choice in self._choices.values()),
            cached_tokens=self._cached,
        )

    def _conversation(self, request: Chat) -> list[int]:
        engine = self._engine
        tools = [] if request.tool_choice == "none" else request.tools
        template = engine.chat_template()
        if tools:
            self._expect_calls(request, tools, template)
        special = engine.special_tokens()
        return engine.encode(self._templates.render(template, request.messages, tools, special))

    def _expect_calls(self, request: Chat, tools: list[Tool], template: str | None) -> None:
        choice = request.tool_choice
        if request.sampling.json_schema is not None:
            raise InvalidRequest(
                "response_format and tools exclude each other; set tool_choice to none",
                param="response_format",
            )
        if choice == "auto":
            names = {tool.name for tool in tools}
            self._new_calls = lambda: parser_for(template, names)
            self._piece = _with_markers(self._engine)
            return
        if choice != "required":
            name = choice.removeprefix("function:")
            tools = [tool for tool in tools if tool.name == name]
            if not tools:
                raise InvalidRequest(f"no tool is named {name!r}", param="tool_choice")
        self._new_calls = forced.ForcedCall
        self._sampling = msgspec.structs.replace(
            self._sampling, json_schema=forced.schema_for(tools)
        )

    def _raw(self, prompt: str | list[int]) -> list[int]:
        engine = self._engine
        tokens = engine.start() + engine.encode(prompt) if isinstance(prompt, str) else prompt
        if not tokens:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return tokens

    def _part(self, prompt: list[int], index: int, sample: int) -> Part:
        context = self._engine.info.context_tokens
        if len(prompt) >= context:
            raise InvalidRequest(
                f"the prompt has {len(prompt)} tokens; with at least one to answer, this model "
                f"takes {context}",
                param="messages" if isinstance(self._request, Chat) else "prompt",
            )
        sampling, room = self._sampling, context - len(prompt)
        changed: dict[str, Any] = {"stop": []}
        if sampling.max_tokens is not None and sampling.max_tokens > room:
            changed["max_tokens"] = room
        if sampling.seed is not None:
            changed["seed"] = (sampling.seed + sample) % (1 << 63)
        # Without log-probabilities the echo is text that is known here.
        echo = self._echoes and sampling.logprobs is not None
        return Part(prompt, msgspec.structs.replace(sampling, **changed), echo, index)

    def _prelude(self, part: Part) -> str:
        if not self._echoes or part.echo:
            return ""
        assert isinstance(self._request, Complete)
        prompt = self._request.prompts[part.index // self._request.n]
        if isinstance(prompt, str):
            return prompt
        return b"".join([self._piece(token) for token in prompt]).decode(errors="replace")


def _with_markers(engine: Tokens) -> Piece:
    """``engine.piece``, but for special tokens by which models mark tool calls."""
    ids = {marker: engine.encode(marker) for marker in MARKERS}
    special = {
        found[0]: marker.encode()
        for marker, found in ids.items()
        if len(found) == 1 and not engine.piece(found[0])
    }
    if not special:
        return engine.piece
    return lambda token: special.get(token) or engine.piece(token)

"""Requests to language runtimes as a worker runs them, without the worker."""

from __future__ import annotations

from openmaas.inference import Chat, Complete, Delta, Sampling, Usage
from openmaas.runtimes.base import SampledToken, Step, TokenRuntime
from openmaas.tasks.chat import TemplateRenderer
from openmaas.tasks.generation import Generation

TEMPLATES = TemplateRenderer()


def generate(runtime: TokenRuntime, request: Chat | Complete) -> Generation:
    return Generation(runtime, request, TEMPLATES)


def ask(runtime: TokenRuntime, request: Chat | Complete) -> tuple[list[Delta], Usage]:
    """All deltas of one request that runs alone, and what it used."""
    generation = generate(runtime, request)
    for id, part in enumerate(generation.sequences, 1):
        runtime.add(id, part.prompt, part.sampling, echo=part.echo)
        generation.bind(id, part)
    deltas: list[Delta] = []
    while not generation.done:
        for step in runtime.step():
            assert not step.failed, step.finish
            deltas += generation.advance(step)
        for id in generation.dropped():
            runtime.cancel(id)
    return deltas, generation.usage


def text_of(deltas: list[Delta], index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


def run(
    runtime: TokenRuntime, sequences: dict[int, tuple[list[int], Sampling]], *, echo: bool = False
) -> dict[int, list[SampledToken]]:
    """The tokens of sequences that start together. None may fail."""
    for id, (prompt, sampling) in sequences.items():
        runtime.add(id, prompt, sampling, echo=echo)
    tokens: dict[int, list[SampledToken]] = {id: [] for id in sequences}
    for step in until_idle(runtime):
        assert not step.failed, step.finish
        tokens[step.id] += step.tokens
    return tokens


def until_idle(runtime: TokenRuntime) -> list[Step]:
    steps: list[Step] = []
    while runtime.busy():
        steps += runtime.step()
    return steps


def ids(tokens: list[SampledToken]) -> list[int]:
    return [token.id for token in tokens]

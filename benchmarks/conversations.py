"""Prompts of about the same length, all different, so that no cache answers for the engine."""

from __future__ import annotations

from sentences import sentences

TOPICS = (
    "a bicycle", "a lighthouse", "a steam engine", "a beehive", "a suspension bridge",
    "a violin", "a water mill", "a refrigerator", "a printing press", "a sailing ship",
    "a telescope", "a camera", "a wind turbine", "a piano", "a canal lock", "an elevator",
    "a compass", "a barometer", "a sewing machine", "a submarine", "a helicopter", "a clock",
    "a battery", "a solar panel", "a greenhouse", "a volcano", "a coral reef", "a glacier",
    "a thunderstorm", "a rainbow", "an orchestra", "a library", "a post office", "a bakery",
    "a chess game", "a football match", "a parliament", "a market", "a hospital", "an airport",
)  # fmt: skip


def conversation(number: int, *, system: str | None = None) -> list[dict[str, str]]:
    """One of many; ``number`` picks the topic and makes the rest its own."""
    topic = TOPICS[number % len(TOPICS)]
    ask = f"Case {number}. Explain how {topic} works, in detail."
    turns = [{"role": "user", "content": ask}]
    return [{"role": "system", "content": system}, *turns] if system else turns


def long_system_prompt(words: int = 290) -> str:
    """A system prompt of about 400 tokens, which all conversations share."""
    text = " ".join(sentences(200)).split()
    return "Answer as a patient teacher. These notes are your style guide. " + " ".join(
        text[:words]
    )

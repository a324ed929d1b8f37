"""Which sentences are central, and what becomes of a talkative model."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from openmaas.inference import Chat, ModelInfo
from openmaas.tasks.summarize import centrality, choose, condense, extract, trained
from tests.tasks.exact_model import ExactModel

CHAT = ModelInfo(task="chat", runtime="exact", context_tokens=1024)
ENCODER = ModelInfo(task="embed", runtime="exact", context_tokens=256, dimensions=3)


def condensed(model: ExactModel, text: str, length: str = "medium") -> str:
    async def run() -> str:
        return "".join([piece async for piece in condense(model, text, length, "paragraph", "en")])  # type: ignore[arg-type]

    return asyncio.run(run())


def test_centrality_is_that_of_a_random_walk() -> None:
    """A star: the middle is visited (1 − d)/n + d·(the others' shares), as worked out by hand."""
    likeness = np.array([[1, 0.5, 0.5], [0.5, 1, 0], [0.5, 0, 1]], np.float32)
    middle, *others = centrality(likeness)
    assert middle == pytest.approx((0.05 + 0.85) / 1.85, abs=1e-4)
    assert others == pytest.approx([(1 - middle) / 2] * 2)


def test_a_sentence_without_likeness_counts_little() -> None:
    shares = centrality(np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]], np.float32))
    assert shares.sum() == pytest.approx(1)
    assert shares[2] < shares[0] == pytest.approx(shares[1])


def test_repetitions_are_left_out_and_the_order_is_kept() -> None:
    rows = np.array([[1, 0, 0], [0.7, 0.714, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    chosen = [at for at, _ in choose(rows, 3)]
    assert chosen == sorted(chosen)
    assert not {0, 2} <= set(chosen)


def test_an_extract_is_half_a_text_at_the_most() -> None:
    vectors = {"One thing.": [1, 0, 0], "Two things.": [0.6, 0.8, 0]}
    model = ExactModel(ENCODER, numbers=lambda text: vectors[text])
    made, shares = asyncio.run(extract(model, "One thing. Two things.", "long", "paragraph", "en"))
    assert made in vectors
    assert len(shares) == 1


def test_a_talkative_model_is_cut_after_whole_sentences() -> None:
    text = "The cat sat on the mat all day. " * 5 + "Then it went home to sleep."
    model = ExactModel(CHAT, writes=lambda _: "It is about a cat. " * 100)
    made = condensed(model, text, "short")
    assert made.strip() == "It is about a cat."


def test_a_summary_longer_than_its_text_is_not_told() -> None:
    text = "A cat sat. It ran."
    model = ExactModel(CHAT, writes=lambda _: "This is a very long sentence about one small cat.")
    assert condensed(model, text) == text


def test_parts_are_summarized_and_then_their_summaries() -> None:
    text = " ".join(f"Sentence number {at} has a few words." for at in range(400))
    model = ExactModel(CHAT, writes=lambda _: "All of it is about numbers.")
    assert condensed(model, text, "short").strip() == "All of it is about numbers."
    prompts = [one.messages[-1].content for one in model.asked if isinstance(one, Chat)]
    assert len(prompts) > 3
    assert "All of it is about numbers." in str(prompts[-1])
    assert all(len(str(prompt).split()) <= 1024 for prompt in prompts)


def test_a_trained_network_is_given_parts_that_fit_into_it() -> None:
    """Its context has room for six words beside what its tokenizer may put around them."""
    info = ModelInfo(task="summarize", runtime="exact", context_tokens=10)
    text = "One two three four. Five six seven. " + "eight " * 20 + "nine."
    for style, wanted in (
        ("paragraph", "It is so. It is so."),
        ("bullets", "• It is so.\n• It is"),
    ):
        model = ExactModel(info, writes=lambda _: " It is so. ")
        made = asyncio.run(trained(model, text, style))  # type: ignore[arg-type]
        assert made.startswith(wanted)
        parts = model.asked[-1].inputs  # type: ignore[union-attr]
        assert all(0 < len(part.split()) <= 6 for part in parts)
        assert "".join(parts).split()[:7] == text.split()[:7]
        assert "".join(parts).replace(" ", "") == text.replace(" ", "")

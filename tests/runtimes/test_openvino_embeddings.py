"""Sentence embeddings in OpenVINO: order, unit length, limits by name, cuts that lose nothing."""

from __future__ import annotations

import itertools
import json
import platform
import random
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, ConfigurationError, InvalidRequest, PayloadTooLarge
from openmaas.inference import Embedded, Predict
from openmaas.runtimes import openvino_cpu, openvino_embeddings
from openmaas.runtimes.openvino_calls import CALL_COST, CALL_TOKENS, batches
from openmaas.runtimes.openvino_embeddings import OpenVinoEmbeddings
from openmaas.runtimes.openvino_texts import REMEMBERED
from tests.runtimes.small_networks import CONTEXT, DIMENSIONS, WORDS, embed, encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def runtime(folder: Path) -> OpenVinoEmbeddings:
    return openvino_embeddings.open(folder, {})


def vectors(answer: Any) -> NDArray[np.float32]:
    assert isinstance(answer, Embedded)
    return np.frombuffer(answer.data, "<f4").reshape(-1, answer.dimensions)


def text(words: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(WORDS[4:], k=words))


def test_says_what_it_is(runtime: OpenVinoEmbeddings) -> None:
    assert runtime.info.task == "embed"
    assert (runtime.info.context_tokens, runtime.info.dimensions) == (CONTEXT, DIMENSIONS)
    assert runtime.info.options == ["dimensions"]


def test_vectors_come_in_the_order_of_the_inputs(runtime: OpenVinoEmbeddings) -> None:
    texts = [text(length, seed) for seed, length in enumerate([1, 14, 3, 9, 1, 12, 5])]
    asked = [embed(*texts[:4]), embed(texts[4]), embed(*texts[5:])]
    assert [runtime.size(one) for one in asked] == [27 + 8, 1 + 2, 17 + 4]
    together = np.concatenate([vectors(answer) for answer in runtime.run(asked)])
    alone = np.concatenate([vectors(runtime.run([embed(one)])[0]) for one in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_text_and_its_token_ids_are_the_same(runtime: OpenVinoEmbeddings) -> None:
    words, ids = "w3 w5", [2, 7, 9, 3]
    first, second = (vectors(runtime.run([embed(one)])[0]) for one in (words, ids))
    np.testing.assert_array_equal(first, second)


def test_bills_the_tokens_that_it_read(runtime: OpenVinoEmbeddings) -> None:
    asked = embed("w1 w2", [7, 8, 9])
    (answer,) = runtime.run([asked])
    assert isinstance(answer, Embedded)
    assert answer.usage.input_tokens == 4 + 3


def test_fewer_dimensions_are_cut_and_of_unit_length(runtime: OpenVinoEmbeddings) -> None:
    whole, cut = (vectors(runtime.run([embed("w1 w2", dimensions=d)])[0]) for d in (None, 3))
    np.testing.assert_allclose(cut, whole[:, :3] / np.linalg.norm(whole[:, :3]), atol=1e-6)


@pytest.mark.parametrize("dimensions", [0, -1, DIMENSIONS + 1])
def test_dimensions_are_bounded(runtime: OpenVinoEmbeddings, dimensions: int) -> None:
    with pytest.raises(InvalidRequest, match=f"from 1 to {DIMENSIONS}") as caught:
        runtime.size(embed("w1", dimensions=dimensions))
    assert caught.value.param == "dimensions"


def test_an_input_may_fill_the_context_and_no_more(runtime: OpenVinoEmbeddings) -> None:
    assert runtime.size(embed(text(CONTEXT - 2))) == CONTEXT
    with pytest.raises(InvalidRequest, match=f"input 1 has {CONTEXT + 1} tokens.* {CONTEXT}"):
        runtime.size(embed("w1", text(CONTEXT - 1)))
    with pytest.raises(InvalidRequest, match=f"has {CONTEXT + 1} tokens"):
        runtime.size(embed([5] * (CONTEXT + 1)))


def test_a_huge_text_is_refused_unread(runtime: OpenVinoEmbeddings) -> None:
    with pytest.raises(PayloadTooLarge, match="characters"):
        runtime.size(embed("w1" + " " * 1_000_000))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (embed(), "nothing to embed"),
        (embed([]), "no tokens"),
        (embed([5, len(WORDS)]), f"from 0 to {len(WORDS) - 1}"),
        (embed([-1]), "from 0 to"),
        (embed([2**63]), "from 0 to"),
        (Predict(inputs=[]), "embeddings only"),
    ],
)
def test_refuses_what_it_cannot_embed(
    runtime: OpenVinoEmbeddings, asked: Any, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        runtime.size(asked)


def test_cuts_only_where_the_operator_said_so(folder: Path) -> None:
    runtime = openvino_embeddings.open(folder, {"truncate": True})
    long = text(CONTEXT * 2)
    kept = " ".join(long.split()[: CONTEXT - 2])
    assert runtime.size(embed(long)) == CONTEXT
    first, second = (vectors(runtime.run([embed(one)])[0]) for one in (long, kept))
    np.testing.assert_array_equal(first, second)


def test_a_request_that_was_measured_and_given_up_leaves_little(
    runtime: OpenVinoEmbeddings,
) -> None:
    for number in range(REMEMBERED + 10):
        runtime.size(embed([4 + number % 60]))
    assert len(runtime._network._measured) <= REMEMBERED
    asked = embed("w1")
    runtime.run([asked])
    assert id(asked) not in runtime._network._measured


def cost(calls: list[list[int]], texts: list[list[int]]) -> int:
    widths = [max(len(texts[index]) for index in call) for call in calls]
    return sum(len(call) * width + CALL_COST for call, width in zip(calls, widths, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_calls_hold_every_text_once_within_the_budget(seed: int) -> None:
    rng = random.Random(seed)
    longest = rng.choice([3, 40, CALL_TOKENS + 5])
    texts = [[0] * rng.randint(1, longest) for _ in range(rng.choice([0, 1, 5, 300]))]
    calls = batches(texts)
    assert sorted(index for call in calls for index in call) == list(range(len(texts)))
    for call in calls:
        assert len(call) == 1 or len(call) * max(len(texts[index]) for index in call) <= CALL_TOKENS


@pytest.mark.parametrize("seed", range(20))
def test_no_other_cut_of_the_sorted_texts_costs_less(seed: int) -> None:
    rng = random.Random(seed)
    texts = [[0] * rng.randint(1, 40) for _ in range(9)]
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    others = []
    for cuts in itertools.product((False, True), repeat=len(order) - 1):
        ends = [at + 1 for at, cut in enumerate(cuts) if cut]
        pieces = zip([0, *ends], [*ends, len(order)], strict=True)
        others.append(cost([order[first:end] for first, end in pieces], texts))
    assert cost(batches(texts), texts) == min(others)


@pytest.mark.parametrize("spoil", ["tokenizer.json", "manifest.json", "openvino_model.xml"])
def test_a_broken_artifact_is_refused(tmp_path: Path, spoil: str) -> None:
    folder = encoder(tmp_path / "encoder")
    (folder / spoil).write_bytes(b'{"half": ')
    with pytest.raises(ArtifactRefused):
        openvino_embeddings.open(folder, {})


def test_an_encoder_without_a_context_is_refused(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "encoder")
    (folder / "manifest.json").write_text(json.dumps({"context_tokens": 0}))
    with pytest.raises(ArtifactRefused, match="context_tokens"):
        openvino_embeddings.open(folder, {})


@pytest.mark.parametrize("options", [{"truncate": "yes"}, {"batch": 1}, {"threads": -1}])
def test_options_are_known_and_in_range(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        openvino_embeddings.open(folder, options)


@pytest.mark.skipif(
    " amx_bf16" in Path("/proc/cpuinfo").read_text() or platform.machine() != "x86_64",
    reason="this CPU is fastest as OpenVINO chooses",
)
def test_without_amx_float32_is_the_default(folder: Path) -> None:
    """OpenVINO's own choice would be bfloat16 where the CPU knows it, which takes longer."""
    model = openvino.Core().read_model(folder / "openvino_model.xml")
    compiled = openvino_cpu.compile_model(model, threads=1, precision=None)
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32

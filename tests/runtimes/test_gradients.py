"""What gradients say of a row or text: exact where that is known, and refused where it is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from openvino import opset13 as ops

from openmaas.errors import ArtifactRefused, ConfigurationError, InvalidRequest, OpenMaaSError
from openmaas.inference import Attribute, Attributed, Failure, Score, Tensor
from openmaas.registry.manifest import Manifest
from openmaas.runtimes import gradients, open_runtime, openvino_classifier, openvino_tensors
from openmaas.runtimes.gradients import Gradients
from openmaas.serving.choice import choose
from tests.runtimes import small_networks
from tests.runtimes.attributing import explained, values
from tests.runtimes.small_networks import CONTEXT, LABELS, dense_weights, tensor

Array = NDArray[Any]
X = np.array([[0.5, -1.0, 2.0, 0.25, -0.75, 1.5]], np.float32)
chance = np.random.default_rng(2)
W1, W2 = (chance.normal(size=shape).astype(np.float32) for shape in ((6, 8), (8, 3)))


def of_format(folder: Path, kind: str = "openvino-ir") -> Path:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": kind}))
    return folder


def network(folder: Path, make: Callable[[Any], Any], dtype: Any = np.float32) -> Gradients:
    """``x`` [rows, 6] → ``y`` = make(x)."""
    made = small_networks.network(folder / "network", [-1, 6], make, dtype)
    return gradients.open(of_format(made), {})


def asked(runtime: Gradients, method: Any = "integrated_gradients", **more: Any) -> Attributed:
    given = {"inputs": [tensor(X)], "index": [0]} | more
    return explained(runtime, Attribute(method=method, **given))


def two_layers(x: Any) -> Any:
    hidden = ops.tanh(ops.matmul(x, ops.constant(W1), False, False))
    return ops.softmax(ops.matmul(hidden, ops.constant(W2), False, False), -1)


def by_hand(x: Array) -> Array:
    powers: Array = np.exp(np.tanh(x @ W1.astype(np.float64)) @ W2.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


def slope(x: Array, number: int) -> Array:
    """Of ``by_hand`` at a row, by differences."""
    steps = np.eye(6) * 1e-5
    found: Array = (by_hand(x + steps) - by_hand(x - steps))[:, number] / 2e-5
    return found


@pytest.fixture(scope="module")
def smooth(tmp_path_factory: pytest.TempPathFactory) -> Gradients:
    return network(tmp_path_factory.mktemp("smooth"), two_layers)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Gradients:
    folder = small_networks.classifier(tmp_path_factory.mktemp("texts"))
    return gradients.open(of_format(folder, "openvino-classifier"), {})


# --- rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["saliency", "smoothgrad"])
def test_of_a_linear_network_all_methods_say_the_same(tmp_path: Path, method: str) -> None:
    runtime = gradients.open(of_format(small_networks.dense(tmp_path / "dense")), {})
    base = np.full((1, 6), 0.5, np.float32)
    answer = asked(runtime, method, output="score", index=[1], baselines=[tensor(base)])
    wanted = (X - base) * dense_weights()[0][:, 1]
    np.testing.assert_allclose(values(answer), wanted, rtol=1e-5, atol=1e-5)


def test_a_linear_network_gives_weight_times_difference(tmp_path: Path) -> None:
    runtime = gradients.open(of_format(small_networks.dense(tmp_path / "dense")), {})
    weights, bias = dense_weights()
    base = np.full((1, 6), 0.5, np.float32)
    answer = asked(runtime, output="score", index=[1], baselines=[tensor(base)])
    np.testing.assert_allclose(values(answer), (X - base) * weights[:, 1], rtol=1e-5, atol=1e-6)
    assert answer.error is not None
    assert answer.error < 1e-5
    assert answer.instance_output == pytest.approx(float((X @ weights + bias)[0, 1]), abs=1e-5)
    assert answer.baseline_output == pytest.approx(float((base @ weights + bias)[0, 1]), abs=1e-5)
    assert (answer.forward_passes, answer.backward_passes, answer.usage.rows) == (65, 65, 130)
    # Its other output is twice the input, number by number.
    double = values(asked(runtime, output="double", index=[3]))
    np.testing.assert_allclose(double, 2 * X * (np.arange(6) == 3), atol=1e-6)


def test_parts_add_up(smooth: Gradients) -> None:
    answer = asked(smooth, index=[2], steps=16)
    wanted = by_hand(X)[0, 2] - by_hand(0 * X)[0, 2]
    assert values(answer).sum() == pytest.approx(wanted, abs=1e-3)
    assert answer.error == pytest.approx(abs(values(answer).sum() - wanted), abs=1e-5)


def test_steps_are_added_until_parts_add_up(tmp_path: Path) -> None:
    def kinked(x: Any) -> Any:
        narrow = ops.multiply(ops.subtract(x, ops.constant(np.float32(0.3))), ops.constant(X * 40))
        return ops.relu(ops.reduce_sum(narrow, ops.constant(np.int64([1])), True))

    runtime = network(tmp_path, kinked)
    rough = asked(runtime, steps=3, most_steps=3)
    fine = asked(runtime, steps=3, most_steps=4096)
    assert rough.forward_passes == 5
    assert fine.forward_passes > rough.forward_passes
    assert rough.error is not None
    assert fine.error is not None
    difference = fine.instance_output - fine.baseline_output
    assert fine.error <= 1e-3 * difference < rough.error
    assert values(fine).sum() == pytest.approx(difference, rel=1e-3)


def test_saliency_is_the_gradient_times_the_way(smooth: Gradients) -> None:
    answer = asked(smooth, "saliency", index=[1])
    wanted = slope(X.astype(np.float64), 1) * X[0]
    np.testing.assert_allclose(values(answer)[0], wanted, atol=1e-5)
    assert answer.error is None
    assert answer.instance_output == pytest.approx(by_hand(X)[0, 1], abs=1e-5)


def test_smoothgrad_is_the_mean_gradient_of_noisy_copies(smooth: Gradients) -> None:
    answer = asked(smooth, "smoothgrad", index=[1], steps=40, noise=0.1, seed=7)
    noise = np.random.default_rng(7).standard_normal((40, 1, 6)) * 0.1 * np.ptp(X)
    wanted = np.mean([slope(X + one, 1) for one in noise], axis=0) * X[0]
    np.testing.assert_allclose(values(answer)[0], wanted, atol=1e-5)
    again = asked(smooth, "smoothgrad", index=[1], steps=40, noise=0.1, seed=7)
    assert again == answer
    assert asked(smooth, "smoothgrad", index=[1], steps=40, noise=0.1, seed=8) != answer


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "smoothgrad"])
def test_what_has_no_part_gets_nothing(tmp_path: Path, method: str) -> None:
    seen = np.float32([[1, 1, 0, 1, 1, 0]])
    runtime = network(tmp_path, lambda x: two_layers(ops.multiply(x, ops.constant(seen))))
    found = values(asked(runtime, method))[0]
    assert (found[[2, 5]] == 0).all()
    assert (np.abs(found[[0, 1, 3, 4]]) > 1e-6).all()


def test_a_constant_network_gives_zeros(tmp_path: Path) -> None:
    def fixed(x: Any) -> Any:
        return ops.broadcast(ops.constant(np.float32(3)), ops.shape_of(x))

    answer = asked(network(tmp_path, fixed))
    assert not values(answer).any()
    assert (answer.baseline_output, answer.instance_output, answer.error) == (3.0, 3.0, 0.0)


def test_ids_are_explained_at_their_vectors(tmp_path: Path) -> None:
    table = chance.normal(size=(10, 4)).astype(np.float32)
    weights = chance.normal(size=(24, 3)).astype(np.float32)

    def looked_up(x: Any) -> Any:
        rows = ops.gather(ops.constant(table), x, ops.constant(np.int64(0)))
        flat = ops.reshape(rows, ops.constant(np.int64([0, -1])), True)
        return ops.matmul(flat, ops.constant(weights), False, False)

    runtime = network(tmp_path, looked_up, np.int32)
    ids = np.int32([[3, 1, 4, 1, 5, 9]])
    vectors, by_place = table[ids[0]], weights[:, 2].reshape(6, 4)
    answer = asked(runtime, inputs=[tensor(ids)], index=[2])
    np.testing.assert_allclose(
        values(answer)[0], ((vectors - table[0]) * by_place).sum(1), rtol=1e-4, atol=1e-5
    )
    found = values(asked(runtime, "saliency", inputs=[tensor(ids)], index=[2]))
    np.testing.assert_allclose(found, values(answer), rtol=1e-4, atol=1e-5)  # it is linear


# --- texts -------------------------------------------------------------------------------------


def test_tokens_and_their_places(reader: Gradients) -> None:
    text = "w1 w2  w3"
    answer = asked(reader, text=text, inputs=[], index=[1])
    assert answer.offsets == [(0, 0), (0, 2), (3, 5), (7, 9), (0, 0)]
    assert answer.usage.input_tokens == 5 * 2 * answer.forward_passes
    found = values(answer)
    assert found.shape == (5,)
    assert found[0] == found[4] == 0  # special tokens stay as they are
    assert answer.error is not None
    assert answer.error < 1e-3
    assert found.sum() == pytest.approx(answer.instance_output - answer.baseline_output, abs=1e-3)


@pytest.mark.parametrize("baseline", ["pad", "zero"])
def test_what_tokens_are_compared_with(reader: Gradients, baseline: str) -> None:
    words, kinds = small_networks.classifier_tables()
    ids = [2, 5, 6, 3]
    other = words[0] if baseline == "pad" else 0 * words[0]
    logits = [
        np.mean([words[2], first, second, words[3]], axis=0) + kinds[0]
        for first, second in ((words[ids[1]], words[ids[2]]), (other, other))
    ]
    answer = asked(reader, text="w1 w2", inputs=[], index=[0], baseline=baseline)
    wanted = 1 / (1 + np.exp(-np.array(logits)[:, 0]))  # it is multi-label
    assert [answer.instance_output, answer.baseline_output] == pytest.approx(wanted, abs=1e-5)


def test_long_texts_are_refused_or_cut(tmp_path: Path, reader: Gradients) -> None:
    text = " ".join(["w1"] * 30)
    with pytest.raises(InvalidRequest, match=f"32 tokens, the limit is {CONTEXT}"):
        reader.size(Attribute(method="saliency", text=text, index=[0]))
    folder = of_format(small_networks.classifier(tmp_path / "c"), "openvino-classifier")
    cutting = gradients.open(folder, {"truncate": True})
    answer = asked(cutting, "saliency", text=text, inputs=[])
    assert len(answer.offsets) == CONTEXT
    assert answer.offsets[-2:] == [(39, 41), (0, 0)]


def test_padding_says_nothing(reader: Gradients, tmp_path: Path) -> None:
    """A length that is compiled for serves all shorter texts with the same numbers."""
    network_without = gradients.open(
        of_format(small_networks.without_mask(tmp_path / "w"), "openvino-classifier"), {}
    )
    for words in (1, 5, 13):
        text = " ".join(f"w{at}" for at in range(words))
        for runtime in (reader, network_without):
            answer = asked(runtime, text=text, inputs=[], index=[2])
            assert values(answer).shape == (words + 2,)
            assert answer.error is not None
            assert answer.error < 1e-3
    served = openvino_classifier.open(tmp_path / "w", {})
    (scored,) = served.run([Score(inputs=["w0 w1 w2 w3 w4"])])
    logits = np.frombuffer(scored.data, "<f4")  # type: ignore[union-attr]
    wanted = np.exp(logits) / np.exp(logits).sum()
    answer = asked(network_without, text="w0 w1 w2 w3 w4", inputs=[], index=[2])
    assert answer.instance_output == pytest.approx(wanted[2], abs=1e-5)


# --- what is refused -----------------------------------------------------------------------------


def test_it_says_what_the_serving_runtime_says(smooth: Gradients, reader: Gradients) -> None:
    assert (smooth.info.task, smooth.info.runtime) == ("predict", "gradients")
    assert [(one.name, one.shape) for one in smooth.info.inputs] == [("x", [-1, 6])]
    assert [(one.name, one.shape) for one in smooth.info.outputs] == [("y", [-1, 3])]
    assert (reader.info.task, reader.info.runtime) == ("classify", "gradients")
    assert (reader.info.labels, reader.info.multi_label) == (LABELS, True)
    assert reader.info.context_tokens == CONTEXT


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": [tensor(np.vstack([X, X]))]}, "one row"),
        ({"inputs": [tensor(X[:, :5])]}, "shape"),
        ({"inputs": [tensor(X, "z")]}, "unknown"),
        ({"index": [3]}, "index"),
        ({"index": []}, "index"),
        ({"output": "z"}, "output"),
        ({"baselines": [tensor(X, "z")]}, "baselines are for x"),
        ({"steps": 5000}, "steps"),
        ({"most_steps": 0}, "most_steps"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"text": "w1"}, "not a text"),
    ],
)
def test_requests_that_do_not_fit(smooth: Gradients, changed: Any, message: str) -> None:
    given = {"inputs": [tensor(X)], "index": [0]} | changed
    with pytest.raises(InvalidRequest, match=message):
        smooth.size(Attribute(method="saliency", **given))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": None}, "reads a text"),
        ({"inputs": [tensor(X)]}, "reads a text"),
        ({"index": [3]}, "index is the place of a label"),
        ({"baseline": "mean"}, "pad or zero"),
    ],
)
def test_texts_that_do_not_fit(reader: Gradients, changed: Any, message: str) -> None:
    given = {"text": "w1", "index": [0]} | changed
    with pytest.raises(InvalidRequest, match=message):
        reader.size(Attribute(method="saliency", **given))


def test_one_bad_request_fails_alone(smooth: Gradients) -> None:
    wrong = np.full((1, 6), np.nan, np.float32)
    requests = [
        Attribute(method="saliency", inputs=[tensor(one)], index=[0]) for one in (X, wrong, X)
    ]
    answers = smooth.run(requests)
    assert [type(one) for one in answers] == [Attributed, Failure, Attributed]
    assert answers[0] == answers[2]
    with pytest.raises(InvalidRequest, match="gradients say only"):
        smooth.size(Score(inputs=["w1"]))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: ops.one_hot(
            x, ops.constant(np.int64(9)), *(ops.constant(np.float32(v)) for v in (1, 0)), -1
        ),
        lambda x: ops.exp(ops.convert(x, "f32")),
    ],
)
def test_other_uses_of_whole_numbers_are_refused(tmp_path: Path, make: Any) -> None:
    with pytest.raises(ArtifactRefused, match=r"'x' holds whole numbers.*occlusion"):
        network(tmp_path, make, np.int32)


def test_ids_that_are_changed_before_they_are_looked_up_are_refused(tmp_path: Path) -> None:
    table = ops.constant(chance.normal(size=(10, 4)).astype(np.float32))

    def hashed(x: Any) -> Any:
        at = ops.floor_mod(ops.multiply(x, ops.constant(np.int32(7))), ops.constant(np.int32(10)))
        return ops.reduce_sum(
            ops.gather(table, at, ops.constant(np.int64(0))), ops.constant(np.int64([1])), False
        )

    with pytest.raises(ArtifactRefused, match="'x' are changed before they are looked up"):
        network(tmp_path, hashed, np.int32)


def test_an_operation_without_gradients_is_refused_by_name(tmp_path: Path) -> None:
    edges = [ops.constant(np.float32(value)) for value in (-1, 1, -1, 1)]
    with pytest.raises(ArtifactRefused, match="the operation FakeQuantize"):
        network(tmp_path, lambda x: ops.fake_quantize(x, *edges, 16))


def test_without_jax_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = of_format(small_networks.dense(tmp_path / "dense"))
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ConfigurationError, match=r"pip install \"openmaas\[train\]\""):
        open_runtime("gradients", folder, {})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("openvino-encoder", {}),
        ("openvino-ir", {"truncate": True}),
        ("openvino-ir", {"precision": "bf16"}),
        ("openvino-ir", {"threads": 0}),
    ],
)
def test_formats_and_options(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    folder = of_format(small_networks.dense(tmp_path / "dense"), kind)
    with pytest.raises(OpenMaaSError):
        gradients.open(folder, options)
    assert openvino_tensors.open(folder, {}).info.task == "predict"


@pytest.mark.parametrize("kind", ["openvino-ir", "openvino-tabular", "openvino-classifier"])
def test_operators_cannot_choose_it_to_serve(kind: Any) -> None:
    manifest = Manifest(
        format=kind,
        task="predict",
        architecture="onnx",
        files=[],
        source="file:network.onnx",
        source_sha256="0" * 64,
    )
    with pytest.raises(ConfigurationError, match="'gradients' cannot serve"):
        choose(manifest, "gradients")


def test_names_of_tensors_stay(smooth: Gradients) -> None:
    (told,) = asked(smooth).values
    assert isinstance(told, Tensor)
    assert (told.name, told.datatype, told.shape) == ("x", "FP32", [1, 6])

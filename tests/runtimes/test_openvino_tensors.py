"""Ordinary networks in OpenVINO: numbers, batches of unequal requests, refusals by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from openvino import opset13 as ops

from openmaas.errors import ArtifactRefused, ConfigurationError, InvalidRequest
from openmaas.inference import Embed, Predict, Predicted, Tensor
from openmaas.runtimes import openvino_tensors
from openmaas.runtimes.openvino_network import DATATYPES
from openmaas.runtimes.openvino_tensors import OpenVinoTensors
from tests.runtimes.small_networks import dense, dense_weights, network, predict, save, tensor

RNG = np.random.default_rng(7)


def rows(count: int, width: int = 6) -> NDArray[np.float32]:
    return RNG.standard_normal((count, width)).astype(np.float32)


def values(answer: Any, output: int = 0) -> NDArray[Any]:
    assert isinstance(answer, Predicted)
    made = answer.outputs[output]
    dtype = dict(DATATYPES.values())[made.datatype]
    return np.frombuffer(made.data, dtype).reshape(made.shape)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> OpenVinoTensors:
    return openvino_tensors.open(dense(tmp_path_factory.mktemp("dense")), {})


def test_says_what_it_takes_and_gives(runtime: OpenVinoTensors) -> None:
    (takes,) = runtime.info.inputs
    assert (takes.name, takes.datatype, takes.shape) == ("x", "FP32", [-1, 6])
    assert [(s.name, s.shape) for s in runtime.info.outputs] == [
        ("score", [-1, 3]),
        ("double", [-1, 6]),
    ]


@pytest.mark.parametrize("counts", [[1], [1, 1, 1], [3, 1, 2], [63, 1], [64, 1], [200]])
def test_every_request_gets_its_own_rows(runtime: OpenVinoTensors, counts: list[int]) -> None:
    weights, bias = dense_weights()
    arrays = [rows(count) for count in counts]
    asked = [predict(array) for array in arrays]
    assert [runtime.size(one) for one in asked] == counts
    for array, answer in zip(arrays, runtime.run(asked), strict=True):
        np.testing.assert_allclose(values(answer), array @ weights + bias, atol=1e-5)
        np.testing.assert_array_equal(values(answer, 1), 2 * array)
        assert isinstance(answer, Predicted)
        assert answer.usage.rows == len(array)


def test_an_answer_outlives_the_next_batch(runtime: OpenVinoTensors) -> None:
    array = rows(2)
    (first,) = runtime.run([predict(array, "double")])
    runtime.run([predict(rows(2))])
    np.testing.assert_array_equal(values(first), 2 * array)


def test_gives_the_outputs_that_are_asked_for_in_that_order(runtime: OpenVinoTensors) -> None:
    asked = [predict(rows(1), "double", "score"), predict(rows(1), "score"), predict(rows(1))]
    names = [
        [output.name for output in answer.outputs]
        for answer in runtime.run(asked)
        if isinstance(answer, Predicted)
    ]
    assert names == [["double", "score"], ["score"], ["score", "double"]]


def test_numbers_that_are_none_stay_in_their_row(runtime: OpenVinoTensors) -> None:
    bad, good = np.full((1, 6), np.nan, np.float32), rows(1)
    answers = runtime.run([predict(bad), predict(good)])
    assert np.isnan(values(answers[0])).all()
    assert np.isfinite(values(answers[1])).all()


REFUSED = {
    "missing: x": Predict(inputs=[]),
    "unknown: 'z'": Predict(inputs=[tensor(rows(1), "z")]),
    "FP32, got INT32": Predict(inputs=[tensor(np.zeros((1, 6), np.int32))]),
    "FP32, got BYTES": Predict(
        inputs=[Tensor(name="x", datatype="BYTES", shape=[1], data=b"\1\0\0\0a")]
    ),
    r"\[-1, 6\] \(-1: any\), got \[1, 5\]": predict(rows(1, 5)),
    r"got \[6\]": predict(rows(1)[0]),
    r"got \[\]": Predict(inputs=[Tensor(name="x", datatype="FP32", shape=[], data=bytes(4))]),
    r"got \[0, 6\]": predict(rows(0)),
    r"got \[-1, 6\]": Predict(inputs=[Tensor(name="x", datatype="FP32", shape=[-1, 6], data=b"")]),
    "is 48 bytes, got 24": Predict(
        inputs=[Tensor(name="x", datatype="FP32", shape=[2, 6], data=bytes(24))]
    ),
    "no output 'scores'; there are: double, score": predict(rows(1), "scores"),
    "predictions only": Embed(inputs=["text"]),
}


@pytest.mark.parametrize(("message", "request_"), REFUSED.items(), ids=REFUSED)
def test_refuses_what_does_not_fit_by_name(
    runtime: OpenVinoTensors, message: str, request_: Any
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        runtime.size(request_)


def test_two_inputs_in_any_order_none_twice(tmp_path: Path) -> None:
    a = ops.parameter([-1, 2], np.float32, name="a")
    b = ops.parameter([-1, 2], np.float32, name="b")
    runtime = openvino_tensors.open(save(tmp_path, [a, b], {"y": ops.subtract(a, b)}), {})
    first, second = rows(2, 2), rows(2, 2)
    asked = [
        Predict(inputs=[tensor(first, "a"), tensor(second, "b")]),
        Predict(inputs=[tensor(second, "b"), tensor(first, "a")]),
    ]
    assert [runtime.size(one) for one in asked] == [2, 2]
    for answer in runtime.run(asked):
        np.testing.assert_array_equal(values(answer), first - second)
    with pytest.raises(InvalidRequest, match="missing: b"):
        runtime.size(Predict(inputs=[tensor(first, "a"), tensor(second, "a")]))
    with pytest.raises(InvalidRequest, match="twice"):
        runtime.size(Predict(inputs=[*asked[0].inputs, tensor(second, "a")]))
    with pytest.raises(InvalidRequest, match="'b' has 1 rows, the first input 2"):
        runtime.size(Predict(inputs=[tensor(first, "a"), tensor(second[:1], "b")]))


def test_requests_of_other_lengths_go_in_other_calls(tmp_path: Path) -> None:
    axis = ops.constant(np.int64([1]))
    folder = network(tmp_path, [-1, -1], lambda x: ops.reduce_mean(x, axis), np.float32)
    runtime = openvino_tensors.open(folder, {})
    assert runtime.info.inputs[0].shape == [-1, -1]
    arrays = [rows(1, 3), rows(2, 5), rows(1, 5), rows(3, 3)]
    asked = [predict(array) for array in arrays]
    assert [runtime.size(one) for one in asked] == [1, 2, 1, 3]
    for array, answer in zip(arrays, runtime.run(asked), strict=True):
        np.testing.assert_allclose(values(answer), array.mean(1), atol=1e-6)


def test_a_batch_of_one_is_made_free(tmp_path: Path) -> None:
    runtime = openvino_tensors.open(dense(tmp_path, batch=1), {})
    assert runtime.info.inputs[0].shape == [-1, 6]
    array = rows(3)
    np.testing.assert_array_equal(values(runtime.run([predict(array)])[0], 1), 2 * array)


def test_a_batch_of_one_that_cannot_be_freed_runs_row_by_row(tmp_path: Path) -> None:
    shape = ops.constant(np.int64([1, 3, 2]))
    folder = network(tmp_path, [1, 6], lambda x: ops.reshape(x, shape, False), np.float32)
    runtime = openvino_tensors.open(folder, {})
    assert runtime.info.inputs[0].shape == [-1, 6]
    arrays = [rows(2), rows(1)]
    assert runtime.size(predict(arrays[0])) == 2
    for array, answer in zip(arrays, runtime.run([predict(a) for a in arrays]), strict=True):
        np.testing.assert_array_equal(values(answer), array.reshape(-1, 3, 2))


def test_rows_that_see_each_other_are_not_mixed(tmp_path: Path) -> None:
    folder = network(tmp_path, [-1, 4], lambda x: ops.softmax(x, 0), np.float32)
    runtime = openvino_tensors.open(folder, {})
    arrays = [rows(2, 4), rows(3, 4)]
    for array, answer in zip(arrays, runtime.run([predict(a) for a in arrays]), strict=True):
        wanted = np.exp(array) / np.exp(array).sum(0)
        np.testing.assert_allclose(values(answer), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", DATATYPES)
def test_carries_every_datatype(tmp_path: Path, kind: str) -> None:
    name, dtype = DATATYPES[kind]
    folder = network(tmp_path, [-1, 3], lambda x: ops.concat([x, x], 1), dtype.type)
    runtime = openvino_tensors.open(folder, {})
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    if dtype.kind != "b":
        array[0, 1] = 100
    asked = [predict(array), predict(array[:1])]
    assert [runtime.size(one) for one in asked] == [2, 1]
    answers = runtime.run(asked)
    np.testing.assert_array_equal(values(answers[0]), np.concatenate([array, array], 1))
    assert values(answers[1]).shape == (1, 6)
    assert runtime.info.outputs[0].datatype == name


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**62])
def test_integers_that_the_engine_would_wrap_are_refused(tmp_path: Path, value: int) -> None:
    folder = network(tmp_path, [-1, 1], lambda x: ops.concat([x, x], 1), np.int64)
    runtime = openvino_tensors.open(folder, {})
    with pytest.raises(InvalidRequest, match="32 bits"):
        runtime.size(predict(np.array([[value]], np.int64)))


def test_a_boolean_is_zero_or_one(tmp_path: Path) -> None:
    folder = network(tmp_path, [-1, 2], ops.logical_not, np.bool_)
    runtime = openvino_tensors.open(folder, {})
    with pytest.raises(InvalidRequest, match="0 or 1"):
        runtime.size(
            Predict(inputs=[Tensor(name="x", datatype="BOOL", shape=[1, 2], data=b"\1\7")])
        )


def test_reads_onnx(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 2]) for n in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    runtime = openvino_tensors.open(tmp_path, {})
    array = rows(2, 2)
    np.testing.assert_array_equal(values(runtime.run([predict(array)])[0]), 2 * array)


def test_strings_are_refused_at_load(tmp_path: Path) -> None:
    x = ops.parameter([-1], ov.Type.string, name="x")
    y = ops.parameter([-1], np.float32, name="y")
    folder = save(tmp_path, [x, y], {"z": ops.add(y, y), "same": ops.result(x)})
    with pytest.raises(ArtifactRefused, match="holds elements of type string"):
        openvino_tensors.open(folder, {})


@pytest.mark.parametrize("content", [None, b"", b"<net", b"\0" * 100])
def test_a_broken_artifact_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "openvino_model.xml").write_bytes(content)
    with pytest.raises(ArtifactRefused):
        openvino_tensors.open(tmp_path, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thread": 1}, "no option 'thread'"),
        ({"threads": 0}, "threads"),
        ({"threads": True}, "threads"),
        ({"precision": "int4"}, "precision"),
    ],
)
def test_options_are_known_and_in_range(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        openvino_tensors.open(dense(tmp_path), options)

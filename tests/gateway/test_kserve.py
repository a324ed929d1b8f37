"""KServe V1: instances ↔ tensors, and against a server."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.processes import ServerProcess

from openmaas.errors import InvalidRequest, OpenMaaSError
from openmaas.gateway.kserve import PredictBody, answer, request
from openmaas.inference import ModelInfo, Predict, Tensor, TensorSpec

ROW = TensorSpec(name="x", datatype="FP32", shape=[-1, 2])
NUMBER = TensorSpec(name="n", datatype="INT64", shape=[-1])
TEXT = TensorSpec(name="t", datatype="BYTES", shape=[-1, 1])
IMAGES = Path(__file__).parents[2] / "examples" / "digits.json"


def read(instances: Any, *specs: TensorSpec, tabular: bool = False) -> Predict:
    raw = msgspec.json.encode({"instances": instances})
    info = ModelInfo(task="predict", runtime="echo", inputs=list(specs), tabular=tabular)
    return request(msgspec.json.decode(raw, type=PredictBody).instances, info)


def floats(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def test_rows_and_objects_say_the_same() -> None:
    rows = read([[1, 2], [3, 4]], ROW)
    assert rows == read([{"x": [1, 2]}, {"x": [3, 4]}], ROW)
    (tensor,) = rows.inputs
    assert (tensor.shape, tensor.data) == ([2, 2], floats(1, 2, 3, 4))
    assert read([1, 2], NUMBER).inputs[0].shape == [2]


def test_several_inputs() -> None:
    given = [{"n": 1, "x": [1, 2], "t": ["a"]}, {"x": [3, 4], "t": ["é"], "n": 2}]
    made = read(given, ROW, NUMBER, TEXT)
    assert [tensor.name for tensor in made.inputs] == ["x", "n", "t"]
    assert [tensor.shape for tensor in made.inputs] == [[2, 2], [2], [2, 1]]
    assert made.inputs[2].data == b"\1\0\0\0a\2\0\0\0\xc3\xa9"


AGE = TensorSpec(name="age", datatype="FP32", shape=[-1, 1])


def test_columns_of_a_table_take_values_and_null() -> None:
    given = [{"age": 3, "t": "Rome"}, {"t": None, "age": None}]
    age, town = read(given, AGE, TEXT, tabular=True).inputs
    assert (age.shape, town.shape) == ([2, 1], [2, 1])
    assert age.data[:4] == floats(3)
    assert np.isnan(np.frombuffer(age.data, "<f4")[1])
    assert town.data == b"\4\0\0\0Rome\0\0\0\0"
    assert read([3, 4], AGE, tabular=True).inputs[0].data == floats(3, 4)


@pytest.mark.parametrize(
    ("instances", "why"),
    [
        ([{"age": "3", "t": "Rome"}], r"column 'age': .*float"),
        ([{"age": 3, "t": 4}], r"column 't': .*str"),
        ([{"age": 1e39, "t": ""}], "out of range"),
        ([{"age": [3], "t": ""}], "column 'age'"),
        ([{"age": 3}], "missing or unknown inputs: t"),
        ([[3, "Rome"]], "several inputs"),
    ],
)
def test_values_that_no_column_takes(instances: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        read(instances, AGE, TEXT, tabular=True)


@pytest.mark.parametrize(
    "instances",
    [
        [1],
        [[1, 2], [3]],
        [[[1, 2]]],
        [[1, "2"]],
        [[1, 1e39]],
        [{"x": [1, 2]}, [3, 4]],
        [[1, 2], {"x": [3, 4]}],
        [{"y": [1, 2]}],
        [{"x": [1, 2], "y": 1}],
        [{}],
        [None],
    ],
)
def test_instances_that_are_not_what_the_network_takes(instances: Any) -> None:
    with pytest.raises(InvalidRequest):
        read(instances, ROW)


def test_several_inputs_need_names() -> None:
    with pytest.raises(InvalidRequest, match="x, n"):
        read([[1, 2]], ROW, NUMBER)


def predictions(outputs: list[Tensor], rows: int) -> Any:
    return msgspec.json.decode(msgspec.json.encode(answer(outputs, rows)))


def test_predictions_are_rows_or_objects() -> None:
    y = Tensor(name="y", datatype="FP32", shape=[2, 2], data=floats(1, 2, 3, 4))
    z = Tensor(name="z", datatype="BOOL", shape=[2], data=b"\0\1")
    assert predictions([y], 2) == {"predictions": [[1, 2], [3, 4]]}
    assert predictions([y, z], 2) == {
        "predictions": [{"y": [1, 2], "z": False}, {"y": [3, 4], "z": True}]
    }
    with pytest.raises(OpenMaaSError):
        answer([y], 3)


# --- against a server --------------------------------------------------------------------


def test_predict(server: ServerProcess) -> None:
    sent = json.loads(IMAGES.read_text())
    answered = server.client.post("/v1/models/digits:predict", json=sent)
    assert answered.status_code == 200, answered.text
    rows = answered.json()["predictions"]
    assert [len(row) for row in rows] == [10] * len(sent["instances"])
    named = {"instances": [{"pixels": row} for row in sent["instances"]]}
    assert server.client.post("/v1/models/digits:predict", json=named).json() == answered.json()


@pytest.mark.parametrize(
    ("model", "body", "status"),
    [
        ("no-such-model", {"instances": [[0]]}, 404),
        ("echo", {"instances": [[0]]}, 400),
        ("digits", {"instances": []}, 400),
        ("digits", {"instances": [[0]]}, 400),
        ("digits", {"instances": [[0] * 64], "signature_name": "x"}, 400),
        ("digits", {}, 400),
    ],
)
def test_errors_are_plain(server: ServerProcess, model: str, body: Any, status: int) -> None:
    answered = server.client.post(f"/v1/models/{model}:predict", json=body)
    assert answered.status_code == status
    assert isinstance(answered.json()["error"], str)


def test_the_path_is_beside_the_one_of_a_model(server: ServerProcess) -> None:
    assert server.client.get("/v1/models/digits").json()["id"] == "digits"
    assert server.client.post("/v1/models/digits").status_code == 405
    assert server.client.get("/v1/models/digits:predict").status_code in (404, 405)

"""Open Inference Protocol V2: how requests are read, and Triton's own client against a server."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.processes import ServerProcess
from tritonclient.utils import InferenceServerException

from openmaas.errors import InvalidRequest, OpenMaaSError, UnsupportedParameter
from openmaas.gateway.open_inference import InferBody, answer, request, split, wants_binary
from openmaas.inference import Tensor

# A busy machine is no failure.
UNTIMED = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

X = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}
IMAGES = Path(__file__).parents[2] / "examples" / "digits.json"


def body(**fields: Any) -> InferBody:
    return msgspec.json.decode(msgspec.json.encode({"inputs": [X]} | fields), type=InferBody)


# --- reading -----------------------------------------------------------------------------


def test_the_body_is_split_where_the_header_says() -> None:
    assert split(b"{}", None) == (b"{}", b"")
    assert split(b"{}abc", "2") == (b"{}", b"abc")
    for wrong in ("6", "-1", "+1", "1.0", "", "x", "²", "9" * 5000):
        with pytest.raises(InvalidRequest):
            split(b"{}abc", wrong)


def test_json_and_binary_inputs_in_one_request() -> None:
    inputs = [
        {"name": "a", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}},
        X,
        {"name": "b", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
    ]
    made = request(body(inputs=inputs), b"\x07" + struct.pack("<I", 2) + b"\xff\x00")
    assert [(tensor.name, tensor.data) for tensor in made.inputs] == [
        ("a", b"\x07"),
        ("x", struct.pack("<2f", 1, 2)),
        ("b", b"\x02\0\0\0\xff\0"),
    ]


def sized(size: int) -> dict[str, Any]:
    return {"inputs": [{k: v for k, v in X.items() if k != "data"}
                       | {"parameters": {"binary_data_size": size}}]}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "binary"),
    [
        (sized(8), b""),
        (sized(8), bytes(9)),
        (sized(4), bytes(4)),
        (sized(2**62), bytes(8)),
        ({}, b"more"),
        ({"inputs": [X | {"parameters": {"binary_data_size": 8}}]}, bytes(8)),
        ({"inputs": [{"name": "x", "shape": [2], "datatype": "FP32"}]}, b""),
        ({"inputs": [X, X]}, b""),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, b""),
    ],
)
def test_requests_that_do_not_add_up(fields: dict[str, Any], binary: bytes) -> None:
    with pytest.raises(InvalidRequest):
        request(body(**fields), binary)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"parameters": {"priority": 1}}, "priority"),
        ({"parameters": {"timeout": 10}}, "timeout"),
        ({"parameters": {"sequence_id": "s"}}, "sequence_id"),
        ({"outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "classification"),
    ],
)
def test_what_is_not_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as raised:
        request(body(**fields), b"")
    assert raised.value.param == param


def test_parameters_that_ask_for_nothing_pass() -> None:
    nothing = {"priority": 0, "sequence_id": 0, "sequence_start": False, "timeout": None}
    assert request(body(parameters=nothing), b"") == request(body(), b"")


def output(name: str, binary: bool | None = None) -> dict[str, Any]:
    return {"name": name} | ({} if binary is None else {"parameters": {"binary_data": binary}})


@pytest.mark.parametrize(
    ("default", "outputs", "expected"),
    [
        (None, None, False),
        (True, None, True),
        (None, [output("a")], False),
        (True, [output("a")], True),
        (True, [output("a", False)], False),
        (None, [output("a", True), output("b", True)], True),
        (None, [output("a", True), output("b")], {"a"}),
        (True, [output("a", False), output("b")], {"b"}),
    ],
)
def test_which_outputs_go_as_bytes(
    default: bool | None, outputs: list[Any] | None, expected: Any
) -> None:
    parameters = {} if default is None else {"binary_data_output": default}
    assert wants_binary(body(parameters=parameters, outputs=outputs)) == expected


def test_an_answer_in_json_and_bytes() -> None:
    a = Tensor(name="a", datatype="INT8", shape=[2], data=b"\x01\xff")
    b = Tensor(name="b", datatype="FP16", shape=[1], data=b"\0\x3c")
    head, tail = answer([a, b], "m", "1", "7", frozenset({"b"}))
    assert tail == b.data
    assert json.loads(head) == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "a", "datatype": "INT8", "shape": [2], "data": [1, -1]},
            {"name": "b", "datatype": "FP16", "shape": [1],
             "parameters": {"binary_data_size": 2}},
        ],
    }  # fmt: skip
    with pytest.raises(InvalidRequest, match="FP16"):
        answer([b], "m", "1", None, False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(["name", "shape", "datatype", "data", "parameters"]),
    st.binary(),
)
@UNTIMED
def test_any_field_is_read_or_refused(value: Any, field: str, binary: bytes) -> None:
    with contextlib.suppress(OpenMaaSError, msgspec.ValidationError):
        request(body(inputs=[X | {field: value}]), binary)


# --- Triton's client against a server ----------------------------------------------------


@pytest.fixture
def client(server: ServerProcess) -> Any:
    made = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield made
    made.close()


@pytest.fixture
def key(server: ServerProcess) -> dict[str, str]:
    """Anew for each test: the client writes its own headers into the mapping."""
    return {"Authorization": f"Bearer {server.key}"}


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    return np.array(json.loads(IMAGES.read_text())["instances"], dtype=np.float32)


def pixels(images: NDArray[np.float32], *, binary: bool) -> triton.InferInput:
    made = triton.InferInput("pixels", list(images.shape), "FP32")
    made.set_data_from_numpy(images, binary_data=binary)
    return made


def test_health_and_metadata_take_no_key(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "openmaas"
    assert "binary_tensor_data" in metadata["extensions"]


def test_a_model_describes_itself(client: Any, key: dict[str, str]) -> None:
    assert client.is_model_ready("digits", headers=key)
    assert not client.is_model_ready("no-such-model", headers=key)
    metadata = client.get_model_metadata("digits", headers=key)
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]
    (version,) = metadata["versions"]
    assert client.get_model_metadata("digits", version, headers=key) == metadata
    config = client.get_model_config("digits", headers=key)
    assert config["input"] == [{"name": "pixels", "data_type": "TYPE_FP32", "dims": [64]}]
    assert config["max_batch_size"] > 1
    index = client.get_model_repository_index(headers=key)
    assert {"name": "digits", "version": version, "state": "READY", "reason": ""} in index


def test_every_way_of_asking_gives_the_same_answer(
    client: Any, key: dict[str, str], images: NDArray[np.float32]
) -> None:
    answers = []
    for binary_input in (True, False):
        for outputs in (
            None,
            [triton.InferRequestedOutput("probabilities", binary_data=True)],
            [triton.InferRequestedOutput("probabilities", binary_data=False)],
        ):
            result = client.infer(
                "digits",
                [pixels(images, binary=binary_input)],
                outputs=outputs,
                request_id="a 7",
                headers=dict(key),
            )
            assert result.get_response()["id"] == "a 7"
            answers.append(result.as_numpy("probabilities"))
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])
    assert answers[0].shape == (len(images), 10)
    np.testing.assert_allclose(answers[0].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(
    client: Any, key: dict[str, str], images: NDArray[np.float32], algorithm: str
) -> None:
    result = client.infer(
        "digits",
        [pixels(images, binary=True)],
        headers=key,
        request_compression_algorithm=algorithm,
    )
    assert result.as_numpy("probabilities").shape == (len(images), 10)


def test_errors_that_the_client_reads(
    client: Any, key: dict[str, str], images: NDArray[np.float32]
) -> None:
    tensor = pixels(images, binary=True)

    def refused(model: str = "digits", **options: Any) -> InferenceServerException:
        with pytest.raises(InferenceServerException) as raised:
            client.infer(model, [tensor], headers=dict(key), **options)
        return raised.value

    assert refused("no-such-model").status() == "404"
    assert refused(model_version="99").status() == "404"
    assert "does chat, not predict" in str(refused("echo").message())
    assert "timeout" in str(refused(timeout=1).message())
    assert "sequence_id" in str(refused(sequence_id=1).message())
    unknown = triton.InferRequestedOutput("no-such-output")
    assert refused(outputs=[unknown]).status() == "400"
    with pytest.raises(InferenceServerException) as raised:
        client.infer("digits", [tensor])
    assert raised.value.status() == "401"


def test_statistics_count_what_was_answered(
    client: Any, key: dict[str, str], images: NDArray[np.float32]
) -> None:
    def stats() -> dict[str, Any]:
        (one,) = client.get_inference_statistics("digits", headers=dict(key))["model_stats"]
        assert isinstance(one, dict)
        return one

    before = stats()
    client.infer("digits", [pixels(images, binary=True)], headers=dict(key))
    after = stats()
    success = [one["inference_stats"]["success"]["count"] for one in (before, after)]
    assert success[1] == success[0] + 1
    assert after["inference_count"] == before["inference_count"] + len(images)
    everything = client.get_inference_statistics(headers=dict(key))["model_stats"]
    assert {"digits", "echo"} <= {one["name"] for one in everything}


def test_load_and_unload(client: Any, key: dict[str, str]) -> None:
    client.load_model("digits", headers=dict(key))  # it is: nothing to do
    assert client.is_model_ready("digits", headers=dict(key))
    for call, options in (
        (client.load_model, {}),
        (client.unload_model, {}),
    ):
        with pytest.raises(InferenceServerException) as raised:
            call("no-such-model", headers=dict(key), **options)
        assert raised.value.status() == "404"
    with pytest.raises(InferenceServerException, match="config"):
        client.load_model("digits", config="{}", headers=dict(key))


def test_answers_are_strict_json(server: ServerProcess) -> None:
    sent = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32",
                        "data": [[3.4e38] * 64]}]}  # fmt: skip
    answered: httpx.Response = server.client.post("/v2/models/digits/infer", json=sent)

    def constant(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    json.loads(answered.content, parse_constant=constant)
    assert answered.status_code in (200, 400)


def test_metadata_tell_labels_where_a_model_names_them(server: ServerProcess) -> None:
    def told(model: str) -> Any:
        return server.client.get(f"/v2/models/{model}").json()

    labels = told("sentiment")["parameters"]["labels"]
    assert {label.lower() for label in labels} >= {"negative", "positive"}
    assert "parameters" not in told("minilm-l6-v2")

"""The OpenAPI document is valid and true to the table of endpoints."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openapi_spec_validator import validate
from tests.processes import ServerProcess

from openmaas.gateway import kserve, open_inference, openai, openapi
from openmaas.gateway.endpoint import Endpoint

TABLE = openai.endpoints() + open_inference.endpoints() + kserve.endpoints()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(openapi.document(TABLE)))
    return made


def test_it_is_valid(document: dict[str, Any]) -> None:
    validate(document)


@pytest.mark.parametrize(
    "endpoint", TABLE, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}"
)
def test_every_endpoint_is_there(document: dict[str, Any], endpoint: Endpoint) -> None:
    operation = document["paths"][endpoint.path][endpoint.method.lower()]
    assert operation["summary"]
    assert bool(operation["security"]) == (endpoint.scope is not None)
    assert operation["x-openmaas-scope"] == endpoint.scope
    assert ("requestBody" in operation) == (endpoint.body is not None)
    named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
    assert named == {part.split("}")[0] for part in endpoint.path.split("{")[1:]}


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(names) == len(set(names)) == len(TABLE)


def test_errors_are_described_in_the_form_they_have(document: dict[str, Any]) -> None:
    def error_of(path: str) -> str:
        answer = document["paths"][path]["post"]["responses"]["400"]
        reference: str = answer["content"]["application/json"]["schema"]["$ref"]
        return reference.rsplit("/", 1)[1]

    assert error_of("/v1/chat/completions") == "OpenAIError"
    assert error_of("/v2/models/{model}/infer") == "PlainError"
    assert error_of("/v1/models/{model}:predict") == "PlainError"


def test_limits_are_in_the_schemas(document: dict[str, Any]) -> None:
    chat = document["components"]["schemas"]["ChatBody"]
    assert chat["additionalProperties"] is False
    assert set(chat["required"]) == {"model", "messages"}
    temperature = chat["properties"]["temperature"]
    assert {"type": "number", "minimum": 0, "maximum": 2} in temperature["anyOf"]


def test_the_server_serves_it_whole(server: ServerProcess, document: dict[str, Any]) -> None:
    served = server.client.get("/openapi.json").json()
    validate(served)
    for path, operations in document["paths"].items():
        assert operations.items() <= served["paths"][path].items()
    assert {"/health", "/metrics"} <= served["paths"].keys()

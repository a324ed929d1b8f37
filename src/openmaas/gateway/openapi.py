"""The OpenAPI 3.1 description, made from the same table that routes requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from openmaas import __version__
from openmaas.gateway.endpoint import Endpoint, Wire
from openmaas.gateway.errors import TABLE
from openmaas.gateway.open_inference import InferBody, Inferred

REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"{([a-z_]+)}")


class OpenAIErrorBody(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct):
    """An error in OpenAI's form."""

    error: OpenAIErrorBody


class PlainError(msgspec.Struct):
    """An error in the form of the Open Inference Protocol, KServe and Hugging Face."""

    error: str


ERRORS: dict[Wire, type] = {
    "openai": OpenAIError,
    "v2": PlainError,
    "kserve": PlainError,
    "huggingface": PlainError,
}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The description of these endpoints, as JSON-like data."""
    types = [
        one
        for endpoint in endpoints
        for one in (endpoint.body, endpoint.response)
        if one not in (None, str, bytes) and not isinstance(one, dict)
    ]
    kinds = list(dict.fromkeys([*types, OpenAIError, PlainError]))
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REF)
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, schema_of)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenMaaS",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(endpoint: Endpoint, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.wire],
        "x-openmaas-scope": endpoint.scope,
        "responses": _responses(endpoint, schema_of),
        "security": [] if endpoint.scope is None else [{"bearer": []}, {"header": []}],
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(endpoint.path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
        for name in endpoint.query
    ]
    if endpoint.body is InferBody:
        parameters.append(
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "required": False,
                "schema": {"type": "integer", "minimum": 0},
                "description": "Bytes of JSON before the binary data",
            }
        )
    if endpoint.body is bytes:
        parameters.append(
            {
                "name": "Upload-Offset",
                "in": "header",
                "required": True,
                "schema": {"type": "integer", "minimum": 0},
                "description": "The byte at which the piece begins",
            }
        )
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is bytes:
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    elif isinstance(endpoint.body, dict):
        form: dict[str, Any] = {"multipart/form-data": {"schema": endpoint.body}}
        operation["requestBody"] = {"required": True, "content": form}
    elif endpoint.body is not None:
        content: dict[str, Any] = {"application/json": {"schema": schema_of[endpoint.body]}}
        if endpoint.body is InferBody:
            content["application/octet-stream"] = {}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"[A-Za-z0-9]+", endpoint.path)
    return "_".join([endpoint.method.lower(), *words])


def _responses(endpoint: Endpoint, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"200": {"description": "Done"}}
    if endpoint.response is str:
        found["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    elif endpoint.response is bytes:
        found["200"]["content"] = {"application/octet-stream": {}}
    elif endpoint.response is not None:
        content: dict[str, Any] = {"application/json": {"schema": schema_of[endpoint.response]}}
        if "stream" in getattr(endpoint.body, "__struct_fields__", ()):
            content["text/event-stream"] = {"schema": {"type": "string"}}
        if endpoint.response is Inferred:
            content["application/octet-stream"] = {}
        found["200"]["content"] = content
    error = {"application/json": {"schema": schema_of[ERRORS[endpoint.wire]]}}
    for status in _statuses(endpoint):
        found[str(status)] = {"description": _DESCRIPTIONS[status], "content": error}
    return found


def _statuses(endpoint: Endpoint) -> list[int]:
    """Every error status that the endpoint can answer with."""
    possible = {status for status, _ in TABLE.values()}
    if endpoint.scope is None:
        possible -= {401, 403}
    if endpoint.body is None:
        possible -= {413, 415}
    return sorted(possible)


_DESCRIPTIONS = {
    400: "The request is wrong; the message names the field",
    401: "No valid key",
    403: "The key's scope is too small",
    404: "No such model or path",
    405: "The path takes another method",
    409: "The state of things forbids it now",
    413: "Beyond a limit",
    415: "A content encoding that is not read here",
    429: "Slow down",
    500: "Something broke here",
    503: "Too busy, loading, or the worker died; try again after Retry-After",
    507: "Storage is full",
}

"""Open Inference Protocol V2: inference, in JSON and with the binary data extension.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and Triton's
``extension_binary_data.md``: with ``Inference-Header-Content-Length: N`` the body is N bytes of
JSON and then, in order, the raw bytes of each tensor that has ``binary_data_size``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from openmaas.errors import InvalidRequest, OpenMaaSError, UnsupportedParameter
from openmaas.gateway import open_inference_models
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.tensors import from_bytes, from_json, to_json
from openmaas.inference import Predict, Predicted, Tensor

Name = Annotated[str, Meta(min_length=1, max_length=1024)]
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Dimension = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Parameter = str | int | float | bool | None


class InputParameters(Struct, forbid_unknown_fields=True):
    binary_data_size: Size | None = None


class OutputParameters(Struct, forbid_unknown_fields=True):
    binary_data: bool | None = None
    classification: Parameter = None  # refused unless 0


class RequestParameters(Struct, forbid_unknown_fields=True):
    binary_data_output: bool | None = None
    # Triton's, refused unless they ask for nothing
    priority: Parameter = None
    sequence_id: Parameter = None
    sequence_start: Parameter = None
    sequence_end: Parameter = None
    timeout: Parameter = None


class InferInput(Struct, forbid_unknown_fields=True):
    name: Name
    shape: list[Dimension]
    datatype: str
    parameters: InputParameters | None = None
    data: msgspec.Raw | UnsetType = UNSET  # a JSON array, flat or nested as the shape says


class InferOutput(Struct, forbid_unknown_fields=True):
    name: Name
    parameters: OutputParameters | None = None


class InferBody(Struct, forbid_unknown_fields=True):
    inputs: Annotated[list[InferInput], Meta(min_length=1, max_length=256)]
    id: Annotated[str, Meta(max_length=256)] | None = None
    parameters: RequestParameters | None = None
    outputs: Annotated[list[InferOutput], Meta(max_length=256)] | None = None


class InferredParameters(Struct):
    binary_data_size: int


class InferredOutput(Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: InferredParameters | None = None
    data: msgspec.Raw | UnsetType = UNSET


class Inferred(Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[InferredOutput]
    id: str | None = None


HEADER = b"inference-header-content-length"
_json = msgspec.json.Encoder().encode


def request(body: InferBody, binary: bytes) -> Predict:
    """
    Args:
        binary: what follows the JSON.

    Raises:
        InvalidRequest: a tensor's data, datatype and shape do not agree.
        UnsupportedParameter: something that this server does not do.
    """
    inputs = []
    position = 0
    for given in body.inputs:
        size = given.parameters.binary_data_size if given.parameters is not None else None
        if size is None:
            if given.data is UNSET:
                raise InvalidRequest(f"input {given.name!r} has no data", param="data")
            tensor = from_json(given.name, given.datatype, given.shape, bytes(given.data))
        else:
            if given.data is not UNSET:
                raise InvalidRequest(
                    f"input {given.name!r} has both data and binary_data_size", param="data"
                )
            if size > len(binary) - position:
                raise InvalidRequest(
                    f"input {given.name!r}: binary_data_size is {size}, but only "
                    f"{len(binary) - position} bytes are left",
                    param="binary_data_size",
                )
            raw = binary[position : position + size]
            position += size
            tensor = from_bytes(given.name, given.datatype, given.shape, raw)
        inputs.append(tensor)
    if position != len(binary):
        raise InvalidRequest(f"{len(binary) - position} bytes of binary data belong to no input")
    names = {tensor.name for tensor in inputs}
    if len(names) != len(inputs):
        raise InvalidRequest("two inputs have one name", param="inputs")
    if body.parameters is not None:
        _refuse(body.parameters)
    return Predict(inputs=inputs, outputs=_outputs(body))


def _outputs(body: InferBody) -> list[str]:
    names = []
    for output in body.outputs or ():
        if output.parameters is not None and output.parameters.classification:
            raise UnsupportedParameter("classification is not supported", param="classification")
        names.append(output.name)
    if len(set(names)) != len(names):
        raise InvalidRequest("an output is asked for twice", param="outputs")
    return names


def _refuse(parameters: RequestParameters) -> None:
    for name in ("priority", "sequence_id", "sequence_start", "sequence_end", "timeout"):
        if getattr(parameters, name):
            raise UnsupportedParameter(f"{name} is not supported", param=name)


def wants_binary(body: InferBody) -> frozenset[str] | bool:
    """Which outputs go as raw bytes: True for all, False for none, or their names."""
    everything = body.parameters is not None and bool(body.parameters.binary_data_output)
    if not body.outputs:
        return everything
    chosen = [
        everything
        if output.parameters is None or output.parameters.binary_data is None
        else output.parameters.binary_data
        for output in body.outputs
    ]
    if all(chosen) or not any(chosen):
        return chosen[0]
    pairs = zip(body.outputs, chosen, strict=True)
    return frozenset(output.name for output, binary in pairs if binary)


def answer(
    outputs: list[Tensor], model: str, version: str, id: str | None, binary: frozenset[str] | bool
) -> tuple[bytes, bytes]:
    """The JSON part and the binary part of an answer.

    Raises:
        InvalidRequest: an output has no JSON form and is not asked for as bytes.
    """
    made: list[InferredOutput] = []
    raw: list[bytes] = []
    for tensor in outputs:
        shown = InferredOutput(tensor.name, tensor.datatype, tensor.shape)
        if binary is True or (binary and tensor.name in binary):
            shown.parameters = InferredParameters(len(tensor.data))
            raw.append(tensor.data)
        elif tensor.datatype == "FP16":
            raise InvalidRequest(
                f"output {tensor.name!r} is FP16, which has no JSON form; ask for it with the "
                "binary data extension (binary_data: true)"
            )
        else:
            shown.data = msgspec.Raw(to_json(tensor))
        made.append(shown)
    return _json(Inferred(model, version, made, id)), b"".join(raw)


def split(body: bytes, header: str | None) -> tuple[bytes, bytes]:
    """The JSON part and the binary part of a body.

    Raises:
        InvalidRequest: the header is not a number of bytes that the body has.
    """
    if header is None:
        return body, b""
    if not (header.isascii() and header.isdigit() and len(header) < 16):
        raise InvalidRequest("Inference-Header-Content-Length is not a number")
    length = int(header)
    if length > len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {length}, but the body has {len(body)} bytes"
        )
    return body[:length], body[length:]


async def infer(exchange: Exchange) -> None:
    """Runs an ordinary network."""
    text, binary = split(await exchange.body(), exchange.header(HEADER))
    body = exchange.decode(text, InferBody)
    call = await exchange.pipeline.submit(
        exchange.ticket,
        exchange.path["model"],
        request(body, binary),
        version=exchange.path.get("version"),
    )
    (event,) = await exchange.collect(call)
    if not isinstance(event, Predicted):
        raise OpenMaaSError("the worker answered with something else than tensors")
    head, tail = answer(event.outputs, call.model, call.version, body.id, wants_binary(body))
    if not tail and wants_binary(body) is False:
        await exchange.respond(head)
        return
    await exchange.respond(
        head + tail,
        content_type=b"application/octet-stream",
        headers=[(HEADER, str(len(head)).encode())],
    )


def endpoints() -> list[Endpoint]:
    """Everything below ``/v2``."""
    paths = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
    return [
        Endpoint(
            "POST",
            path,
            infer,
            "v2",
            "Run a network",
            body=InferBody,
            response=Inferred,
            task="predict",
        )
        for path in paths
    ] + open_inference_models.endpoints()

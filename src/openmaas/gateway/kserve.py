"""KServe V1's POST /v1/models/{model}:predict, which TensorFlow Serving introduced."""

from __future__ import annotations

import math
import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest, OpenMaaSError
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.tensors import from_rows, pack, to_rows
from openmaas.inference import ModelInfo, Predict, Predicted, Tensor, TensorSpec


class PredictBody(Struct, forbid_unknown_fields=True):
    """``instances``: rows, or (needed for several inputs) objects of a row per input name. Of a
    network over a table: objects of a value per column, null where it is missing."""

    instances: Annotated[list[msgspec.Raw], Meta(min_length=1)]


class Predictions(Struct):
    """``predictions``: rows, or objects of a row per output name if there are several."""

    predictions: list[msgspec.Raw]


_rows = msgspec.json.Decoder(list[msgspec.Raw])
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_numbers = msgspec.json.Decoder(list[float | None])
_texts = msgspec.json.Decoder(list[str | None])


def request(instances: list[msgspec.Raw], info: ModelInfo) -> Predict:
    """
    Raises:
        InvalidRequest: an instance is not what the network's inputs say.
    """
    specs = info.inputs
    tensor = _column if info.tabular else _tensor
    if not bytes(instances[0]).lstrip().startswith(b"{"):
        if len(specs) != 1:
            names = ", ".join(spec.name for spec in specs)
            raise InvalidRequest(
                f"this model has several inputs: send objects with {names}", param="instances"
            )
        return Predict(inputs=[tensor(specs[0], instances)])
    columns: dict[str, list[msgspec.Raw]] = {spec.name: [] for spec in specs}
    for number, instance in enumerate(instances):
        row = _object(instance, number)
        if row.keys() != columns.keys():
            wrong = ", ".join(sorted(row.keys() ^ columns.keys()))[:200]
            raise InvalidRequest(
                f"instances[{number}]: missing or unknown inputs: {wrong}", param="instances"
            )
        for name, value in row.items():
            columns[name].append(value)
    return Predict(inputs=[tensor(spec, columns[spec.name]) for spec in specs])


def _object(instance: msgspec.Raw, number: int) -> dict[str, msgspec.Raw]:
    try:
        return _objects.decode(instance)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"instances[{number}]: {error}", param="instances") from None


def _tensor(spec: TensorSpec, rows: list[msgspec.Raw]) -> Tensor:
    return from_rows(spec.name, spec.datatype, len(spec.shape), _joined(rows))


def _column(spec: TensorSpec, rows: list[msgspec.Raw]) -> Tensor:
    """A value a row: null stands for a missing one, which the runtime knows as NaN or no text."""
    try:
        if spec.datatype == "BYTES":
            texts = _texts.decode(_joined(rows))
            flat: list[Any] = [one or "" for one in texts]
        else:
            flat = [math.nan if one is None else one for one in _numbers.decode(_joined(rows))]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = str(error).replace("`$[", "`instances[")
        raise InvalidRequest(f"column {spec.name!r}: {why}", param="instances") from None
    data = pack(spec.name, spec.datatype, flat)
    return Tensor(name=spec.name, datatype=spec.datatype, shape=[len(rows), 1], data=data)


def _joined(rows: list[msgspec.Raw]) -> bytes:
    return b"[" + b",".join(map(bytes, rows)) + b"]"


def answer(outputs: list[Tensor], rows: int) -> Predictions:
    """
    Raises:
        InvalidRequest: an output has no JSON form.
        OpenMaaSError: an output does not have one row per instance.
    """
    for tensor in outputs:
        if not tensor.shape or tensor.shape[0] != rows:
            raise OpenMaaSError(f"output {tensor.name!r} does not have a row per instance")
    columns = {tensor.name: _rows.decode(to_rows(tensor)) for tensor in outputs}
    if len(columns) == 1:
        return Predictions(next(iter(columns.values())))
    encode = msgspec.json.encode
    return Predictions(
        [
            msgspec.Raw(encode({name: column[row] for name, column in columns.items()}))
            for row in range(rows)
        ]
    )


async def predict(exchange: Exchange) -> None:
    """Runs an ordinary network on instances."""
    body = exchange.decode(await exchange.body(), PredictBody)
    model = exchange.path["model"]
    pipeline = exchange.pipeline
    found = pipeline.choose(exchange.caller, model, key=exchange.ticket.sticky)
    info = await found.deployment.known(time.monotonic() + exchange.limits.request_seconds)
    if info.task != "predict":
        raise InvalidRequest(f"model {model!r} does {info.task}, not predict", param="model")
    call = await pipeline.ask(exchange.ticket, found, request(body.instances, info))
    (event,) = await exchange.collect(call)
    if not isinstance(event, Predicted):
        raise OpenMaaSError("the worker answered with something else than tensors")
    await exchange.respond_json(answer(event.outputs, len(body.instances)))


def endpoints() -> list[Endpoint]:
    return [
        Endpoint(
            "POST",
            "/v1/models/{model}:predict",
            predict,
            "kserve",
            "Run a network on rows",
            body=PredictBody,
            response=Predictions,
            task="predict",
        )
    ]

"""Open Inference Protocol V2: the server and its models, and Triton's repository, config and
statistics extensions as its clients call them."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from openmaas import __version__
from openmaas.errors import Overloaded, UnsupportedParameter
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.inference import ModelInfo, TensorSpec
from openmaas.serving.deployment import Deployment
from openmaas.serving.tally import Outcome

EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]


class ServerMetadata(Struct):
    name: str
    version: str
    extensions: list[str]


class Live(Struct):
    live: bool


class Ready(Struct):
    ready: bool


class ModelReady(Struct):
    name: str
    ready: bool


class TensorMetadata(Struct):
    name: str
    datatype: str
    shape: list[int]  # −1: free


class ModelParameters(Struct):
    labels: list[str]  # what the outputs' numbers stand for, in their order


class ModelMetadata(Struct, omit_defaults=True):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: ModelParameters | None = None  # of networks that name labels


class ConfigTensor(Struct):
    name: str
    data_type: str
    dims: list[int]  # without the batch, if max_batch_size > 0


class ModelConfig(Struct):
    name: str
    platform: str
    backend: str
    max_batch_size: int  # 0: the first dimension is no batch
    input: list[ConfigTensor]
    output: list[ConfigTensor]


class InferenceStatistics(Struct):
    success: Outcome
    fail: Outcome
    cancel: Outcome


class ModelStatistics(Struct):
    name: str
    version: str
    last_inference: int  # milliseconds since 1970
    inference_count: int
    inference_stats: InferenceStatistics


class Statistics(Struct):
    model_stats: list[ModelStatistics]


class IndexBody(Struct, forbid_unknown_fields=True):
    ready: bool | None = None  # only models that are ready


class IndexEntry(Struct):
    name: str
    version: str
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str


class RepositoryBody(Struct, forbid_unknown_fields=True):
    """``unload_dependents`` is met by itself: no model here depends on another."""

    parameters: Annotated[dict[str, Any], Meta(max_length=64)] | None = None


class Nothing(Struct):
    pass


STATES: dict[str, Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]] = {
    "ready": "READY",
    "asleep": "READY",  # it answers whoever calls it
    "waiting for memory": "LOADING",
    "loading": "LOADING",
    "restarting": "LOADING",
    "stopping": "UNLOADING",
}


def _found(exchange: Exchange) -> Deployment:
    model, version = exchange.path["model"], exchange.path.get("version")
    return exchange.pipeline.find(exchange.caller, model, version)


async def _loaded(exchange: Exchange) -> tuple[Deployment, ModelInfo]:
    deployment = _found(exchange)
    if deployment.info is None and deployment.state != "asleep":
        raise Overloaded(f"model {deployment.model!r} is {deployment.state}", retry_after=1)
    deadline = time.monotonic() + exchange.limits.request_seconds
    return deployment, await deployment.known(deadline)


async def server_metadata(exchange: Exchange) -> None:
    await exchange.respond_json(ServerMetadata("openmaas", __version__, EXTENSIONS))


async def live(exchange: Exchange) -> None:
    await exchange.respond_json(Live(True))


async def ready(exchange: Exchange) -> None:
    if exchange.pipeline.fleet.loading():
        raise Overloaded("models are still loading", retry_after=1)
    await exchange.respond_json(Ready(True))


async def model_ready(exchange: Exchange) -> None:
    deployment = _found(exchange)
    if deployment.state not in ("ready", "asleep"):  # whoever calls one that is asleep wakes it
        raise Overloaded(f"model {deployment.model!r} is {deployment.state}", retry_after=1)
    await exchange.respond_json(ModelReady(deployment.model, True))


async def model_metadata(exchange: Exchange) -> None:
    deployment, info = await _loaded(exchange)
    await exchange.respond_json(
        ModelMetadata(
            deployment.model,
            [deployment.version],
            info.runtime,
            [TensorMetadata(spec.name, spec.datatype, spec.shape) for spec in info.inputs],
            [TensorMetadata(spec.name, spec.datatype, spec.shape) for spec in info.outputs],
            ModelParameters(info.labels) if info.labels else None,
        )
    )


async def model_config(exchange: Exchange) -> None:
    deployment, info = await _loaded(exchange)
    specs = [*info.inputs, *info.outputs]
    batched = bool(specs) and all(spec.shape[:1] == [-1] for spec in specs)

    def tensors(of: list[TensorSpec]) -> list[ConfigTensor]:
        return [
            ConfigTensor(spec.name, _config_type(spec.datatype), spec.shape[int(batched) :])
            for spec in of
        ]

    await exchange.respond_json(
        ModelConfig(
            name=deployment.model,
            platform=info.runtime,
            backend=info.runtime,
            max_batch_size=exchange.limits.rows if batched else 0,
            input=tensors(info.inputs),
            output=tensors(info.outputs),
        )
    )


def _config_type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _statistics(one: Deployment, tenant: str) -> ModelStatistics:
    tally = one.tally(tenant)
    stats = InferenceStatistics(tally.success, tally.fail, tally.cancel)
    return ModelStatistics(one.model, one.version, tally.last, tally.inferences, stats)


async def model_statistics(exchange: Exchange) -> None:
    await exchange.respond_json(Statistics([_statistics(_found(exchange), exchange.caller.tenant)]))


async def statistics(exchange: Exchange) -> None:
    caller = exchange.caller
    seen = exchange.pipeline.seen_by(caller)
    await exchange.respond_json(Statistics([_statistics(one, caller.tenant) for one in seen]))


async def index(exchange: Exchange) -> None:
    body = exchange.decode(await exchange.body() or b"{}", IndexBody)
    entries = [
        IndexEntry(one.model, one.version, STATES.get(one.state, "UNAVAILABLE"), "")
        for one in exchange.pipeline.seen_by(exchange.caller)
        if one.state in ("ready", "asleep") or not body.ready
    ]
    await exchange.respond_json(entries)


async def load(exchange: Exchange) -> None:
    body = exchange.decode(await exchange.body() or b"{}", RepositoryBody)
    for name in body.parameters or ():
        raise UnsupportedParameter(f"parameter {name[:64]!r} is not supported", param=name[:64])
    await exchange.pipeline.load(exchange.caller, exchange.path["model"])
    await exchange.respond_json(Nothing())


async def unload(exchange: Exchange) -> None:
    body = exchange.decode(await exchange.body() or b"{}", RepositoryBody)
    for name in body.parameters or ():
        if name != "unload_dependents":
            raise UnsupportedParameter(f"parameter {name[:64]!r} is not supported", param=name[:64])
    await exchange.pipeline.unload(exchange.caller, exchange.path["model"])
    await exchange.respond_json(Nothing())


def endpoints() -> list[Endpoint]:
    found = [
        Endpoint("GET", "/v2", server_metadata, "v2", "What this server is", scope=None,
                 response=ServerMetadata),
        Endpoint("GET", "/v2/health/live", live, "v2", "Whether the server runs", scope=None,
                 response=Live),
        Endpoint("GET", "/v2/health/ready", ready, "v2", "Whether models are loaded", scope=None,
                 response=Ready),
        Endpoint("GET", "/v2/models/stats", statistics, "v2", "Statistics of all models",
                 response=Statistics),
        Endpoint("POST", "/v2/repository/index", index, "v2", "List models", body=IndexBody,
                 response=list[IndexEntry]),
        Endpoint("POST", "/v2/repository/models/{model}/load", load, "v2", "Deploy a model",
                 scope="manage", body=RepositoryBody, response=Nothing),
        Endpoint("POST", "/v2/repository/models/{model}/unload", unload, "v2",
                 "Take a model down", scope="manage", body=RepositoryBody, response=Nothing),
    ]  # fmt: skip
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        found += [
            Endpoint("GET", path, model_metadata, "v2", "A model's inputs and outputs",
                     response=ModelMetadata),
            Endpoint("GET", path + "/ready", model_ready, "v2", "Whether a model is loaded",
                     response=ModelReady),
            Endpoint("GET", path + "/config", model_config, "v2", "A model's configuration",
                     response=ModelConfig),
            Endpoint("GET", path + "/stats", model_statistics, "v2", "A model's statistics",
                     response=Statistics),
        ]  # fmt: skip
    return found

"""OpenAI's API: its list of models, and what the other ``openai_…`` files serve."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from openmaas.gateway import openai_chat, openai_completions, openai_embeddings
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.serving.deployment import Deployment


class Model(Struct):
    id: str
    created: int  # Unix seconds, of the version
    owned_by: str
    object: Literal["model"] = "model"


class ModelList(Struct):
    data: list[Model]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


def _model(deployment: Deployment) -> Model:
    return Model(deployment.model, deployment.created, deployment.tenant or "openmaas")


async def models(exchange: Exchange) -> None:
    """Lists what is deployed."""
    data = [_model(deployment) for deployment in exchange.pipeline.seen_by(exchange.caller)]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    await exchange.respond_json(ModelList(data, first, last, has_more=False))


async def model(exchange: Exchange) -> None:
    """One deployed model."""
    deployment = exchange.pipeline.find(exchange.caller, exchange.path["model"])
    await exchange.respond_json(_model(deployment))


def endpoints() -> list[Endpoint]:
    """Everything that OpenAI's clients call."""
    return [
        *openai_chat.endpoints(),
        *openai_completions.endpoints(),
        *openai_embeddings.endpoints(),
        Endpoint("GET", "/v1/models", models, "openai", "List models", response=ModelList),
        Endpoint("GET", "/v1/models/{model}", model, "openai", "One model", response=Model),
    ]

"""Spans of texts that a token classifier finds: people, addresses, or what it was trained for."""

from __future__ import annotations

from msgspec import Struct

from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.tasks.common import TaskAnswer, TaskBody, texts, used
from openmaas.inference import Aggregation, Span, Tag, Tagged
from openmaas.serving import ranking
from openmaas.serving.asking import Asking


class EntitiesBody(TaskBody, forbid_unknown_fields=True, kw_only=True):
    aggregation: Aggregation | None = None  # "first": whole words


class Entity(Struct):
    start: int  # Unicode code points from the text's beginning
    end: int
    text: str
    label: str
    score: float


class EntityList(Struct):
    index: int
    entities: list[Entity]  # in the order of the text


class EntitiesAnswer(TaskAnswer, kw_only=True):
    data: list[EntityList]


async def spans(
    exchange: Exchange, model: Asking, found: list[str], aggregation: Aggregation
) -> list[list[Span]]:
    """Of each text what the model finds in it; texts are read whole."""
    answer = await exchange.complete(model.ask(Tag(inputs=found, aggregation=aggregation)))
    assert isinstance(answer, Tagged)
    return answer.outputs


async def entities(exchange: Exchange) -> None:
    """Finds people, addresses and the like in texts."""
    body = exchange.decode(await exchange.body(), EntitiesBody)
    found = texts(body.input, exchange.limits)
    model = await exchange.pipeline.asking(
        exchange.ticket, body.model, "find entities", ranking.tags
    )
    told = await spans(exchange, model, found, body.aggregation or "first")
    data = [
        EntityList(
            index,
            [
                Entity(one.start, one.end, text[one.start : one.end], one.label, one.score)
                for one in of_one
            ],
        )
        for index, (text, of_one) in enumerate(zip(found, told, strict=True))
    ]
    await exchange.respond_json(
        EntitiesAnswer(model=model.name, version=model.version, usage=used(model), data=data)
    )


ENDPOINTS = [
    Endpoint(
        "POST", "/v1/entities", entities, "openai", "People, addresses and the like in texts",
        body=EntitiesBody, response=EntitiesAnswer, task="entities",
    ),
]  # fmt: skip

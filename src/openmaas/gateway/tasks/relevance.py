"""Documents by their relevance to a query."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.openai_parameters import Count, ModelName
from openmaas.gateway.tasks.common import TaskAnswer, hidden, texts, used
from openmaas.serving import ranking
from openmaas.tasks.rerank import rerank


class Document(Struct, forbid_unknown_fields=True):
    text: str


class RerankBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """As Cohere's and Jina's clients send it."""

    model: ModelName | None = None
    query: str
    documents: Annotated[list[str | Document], Meta(min_length=1)]
    top_n: Count | None = None
    return_documents: bool | None = None


class Relevance(Struct, omit_defaults=True):
    index: int
    relevance_score: float
    document: Document | None = None


class RerankAnswer(TaskAnswer, kw_only=True):
    results: list[Relevance]  # the most relevant first


async def rerank_documents(exchange: Exchange) -> None:
    """Documents in the order of their relevance to a query."""
    body = exchange.decode(await exchange.body(), RerankBody)
    given = [one if isinstance(one, str) else one.text for one in body.documents]
    found = texts(given, exchange.limits, "documents")
    (query,) = texts(body.query, exchange.limits, "query")
    model = await exchange.pipeline.asking(exchange.ticket, body.model, "rerank", ranking.reranks)
    (seen_query,) = await hidden(exchange, [query], "query")
    seen = await hidden(exchange, found, "documents")
    scores = await exchange.complete(rerank(model, seen_query, seen))
    order = (-scores).argsort(kind="stable")[: body.top_n]
    results = [
        Relevance(
            int(index),
            float(scores[index]),
            Document(found[index]) if body.return_documents else None,
        )
        for index in order
    ]
    await exchange.respond_json(
        RerankAnswer(model=model.name, version=model.version, results=results, usage=used(model))
    )


ENDPOINTS = [
    Endpoint(
        "POST", "/v1/rerank", rerank_documents, "openai", "Documents by relevance to a query",
        body=RerankBody, response=RerankAnswer, task="rerank",
    ),
]  # fmt: skip

"""Texts in tokens, as a model splits them."""

from __future__ import annotations

from msgspec import Struct

from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.tasks.common import TaskAnswer, TaskBody, texts, used
from openmaas.inference import Tokenize, Tokenized
from openmaas.serving import ranking


class Token(Struct):
    id: int
    text: str  # U+FFFD where a character is split between tokens
    bytes: list[int]


class TokenList(Struct):
    index: int
    count: int
    tokens: list[Token]


class TokenizeAnswer(TaskAnswer, kw_only=True):
    data: list[TokenList]


async def tokenize(exchange: Exchange) -> None:
    """Splits texts as a model does."""
    body = exchange.decode(await exchange.body(), TaskBody)
    found = texts(body.input, exchange.limits)
    model = await exchange.pipeline.asking(
        exchange.ticket, body.model, "tokenize", ranking.tokenizes
    )
    answer = await exchange.complete(model.ask(Tokenize(inputs=found)))
    assert isinstance(answer, Tokenized)
    data = [
        TokenList(
            index,
            len(one),
            [Token(id, piece.decode(errors="replace"), [*piece]) for id, piece in one],
        )
        for index, one in enumerate(answer.outputs)
    ]
    await exchange.respond_json(
        TokenizeAnswer(model=model.name, version=model.version, usage=used(model), data=data)
    )


ENDPOINTS = [
    Endpoint(
        "POST", "/v1/tokenize", tokenize, "openai", "Split texts into tokens",
        body=TaskBody, response=TokenizeAnswer, task="tokenize",
    ),
]  # fmt: skip

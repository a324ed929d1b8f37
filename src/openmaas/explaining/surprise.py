"""How surprised a model is by each token of an answer: −log p, in nats (Shannon 1948)."""

from __future__ import annotations

from collections.abc import Sequence

from openmaas.errors import EngineFailed
from openmaas.explaining.explanation import Alternative, Piece
from openmaas.inference import Loglikelihood, Loglikelihoods, Message, TokenLogprob
from openmaas.tasks.asking import Model


async def surprise(
    model: Model, messages: Sequence[Message], answer: str, alternatives: int
) -> list[Piece]:
    """The tokens of an answer to a conversation, each with the ``alternatives`` that were
    likeliest in its place.

    Tokens that end within a character are joined with those that complete it; their
    log-probabilities add up, and the alternatives are those of the first.

    Raises:
        OpenMaaSError: the model gives no alternatives, or the request failed.
    """
    found = await model.ask(
        Loglikelihood(messages=list(messages), answers=[answer], alternatives=alternatives)
    )
    assert isinstance(found, Loglikelihoods)
    return pieces(answer, found.details[0])


def pieces(answer: str, tokens: Sequence[TokenLogprob]) -> list[Piece]:
    """Tokens as parts of a text. Of a text with a special token written in it, that stands for
    no bytes, the rest of the answer is found behind it.

    Raises:
        EngineFailed: they are not those of the text.
    """
    made: list[Piece] = []
    held: list[TokenLogprob] = []
    end = 0
    for token in tokens:
        held.append(token)
        try:
            text = b"".join(one.bytes for one in held).decode()
        except UnicodeDecodeError:
            continue
        start = answer.find(text, end)
        if start < 0 and not end:  # a vocabulary that puts a space before every text
            text = text.removeprefix(" ")
            start = answer.find(text)
        if start < 0:
            break
        end = start + len(text)
        made.append(_piece(text, start, held))
        held = []
    if held:
        raise EngineFailed("the tokens are not those of the answer")
    return made


def _piece(text: str, start: int, tokens: Sequence[TokenLogprob]) -> Piece:
    if any(token.logprob is None for token in tokens):
        raise EngineFailed("the engine left out log-probabilities of the answer")
    logprob = sum(token.logprob or 0.0 for token in tokens)
    return Piece(
        text=text,
        start=start,
        end=start + len(text),
        attribution=-logprob,
        logprob=logprob,
        alternatives=[
            Alternative(text=text, logprob=value) for text, _, value in tokens[0].alternatives
        ],
    )

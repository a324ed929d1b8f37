"""What a text says, in fewer words: its own most central sentences (extractive), or new ones by
a language model or a network that was trained to (abstractive)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.inference import Chat, Message, Sampling, Translate, Translated
from openmaas.tasks.asking import Model, together, token_counts, vectors, written
from openmaas.tasks.languages import detect, name_of
from openmaas.tasks.passages import passages, sentences

Length = Literal["short", "medium", "long"]
Style = Literal["paragraph", "bullets"]
SENTENCES: dict[Length, int] = {"short": 1, "medium": 3, "long": 7}
ANSWER_TOKENS: dict[Length, int] = {"short": 60, "medium": 160, "long": 400}
PROMPT_TOKENS = 160  # of the instruction and the conversation's form, at the most
NODES = 1000  # sentences of one graph; of a longer text each part gives its best ones first
DAMPING = 0.85
LEAST_LIKENESS = 0.1  # of two sentences that are joined in the graph
REPEATS = 0.8  # a sentence so like one that was chosen says nothing new
ENDS = '.!?…。!?؟।"”»)'
AROUND = 4  # tokens that a trained network's tokenizer puts around a text, at the most
AT_ONCE = 4  # parts that a language model summarizes at a time
ROUNDS = 4  # of summaries of summaries

Matrix = NDArray[np.float32]


def method(task: str) -> str:
    return "extractive" if task == "embed" else "abstractive"


# --- extractive ------------------------------------------------------------------------------


async def extract(
    model: Model, text: str, length: Length, style: Style, language: str | None
) -> tuple[str, list[float]]:
    """The most central sentences in the text's own order: LexRank (Erkan and Radev, 2004) over
    sentence embeddings, none of them nearly a repetition of another.

    Returns:
        The summary, and the share of centrality of each sentence in it, in [0, 1].

    Raises:
        InvalidRequest: ``language`` is not the text's own.
    """
    own = detect(text)
    if language is not None and language != own:
        raise InvalidRequest(
            f"sentences are taken as they are, and this text is in {name_of(own)}; for a summary "
            "in another language name a chat model",
            param="language",
        )
    found = [part.strip() for part in sentences(text, own)]
    found = [part for part in found if any(map(str.isalnum, part))] or [text.strip()]
    wanted = min(SENTENCES[length], math.ceil(len(found) / 2))
    while len(found) > NODES:
        halves = [found[at : at + NODES] for at in range(0, len(found), NODES)]
        best = [await _central(model, half, max(1, len(half) // 4)) for half in halves]
        found = [half[at] for half, chosen in zip(halves, best, strict=True) for at, _ in chosen]
    chosen = await _central(model, found, wanted)
    kept = "".join(shaped([_spaced(found[at]) for at, _ in chosen], style)).strip()
    own_words = text.strip()  # bullets can make a short text longer
    return kept if len(kept) <= len(own_words) else own_words, [share for _, share in chosen]


def shaped(parts: Iterable[str], style: Style) -> Iterator[str]:
    """Sentences as the style wants them, one after the other."""
    for part in parts:
        yield f"• {part.strip()}\n" if style == "bullets" else part


def _spaced(sentence: str) -> str:
    """With a space after it, but in scripts that put none there."""
    return sentence if sentence[-1] >= "\u2e80" else sentence + " "


async def _central(model: Model, found: list[str], wanted: int) -> list[tuple[int, float]]:
    """(index, share of centrality), in the order of the text."""
    rows = await vectors(model, found)
    return await asyncio.to_thread(choose, rows, wanted)


def choose(rows: NDArray[np.float32], wanted: int) -> list[tuple[int, float]]:
    """
    Args:
        rows: unit vectors of the sentences, ``sentences × dimensions``.
    """
    likeness = np.clip(rows @ rows.T, 0.0, 1.0)
    shares = centrality(likeness)
    chosen: list[int] = []
    for at in np.argsort(-shares, kind="stable"):
        if len(chosen) == wanted:
            break
        if all(likeness[at, other] < REPEATS for other in chosen):
            chosen.append(int(at))
    return [(at, float(shares[at])) for at in sorted(chosen)]


def centrality(likeness: Matrix) -> Matrix:
    """PageRank of the graph whose edges weigh what two sentences have in common; adds up to 1."""
    count = len(likeness)
    weights = np.where(likeness >= LEAST_LIKENESS, likeness, 0.0)
    np.fill_diagonal(weights, 0.0)
    totals = weights.sum(axis=1, keepdims=True)
    steps = np.divide(weights, totals, out=np.full_like(weights, 1 / count), where=totals > 0)
    shares = np.full(count, 1 / count, np.float32)
    for _ in range(100):
        after = (1 - DAMPING) / count + DAMPING * (shares @ steps)
        if np.abs(after - shares).sum() < 1e-6:
            break
        shares = after
    result: Matrix = shares / shares.sum()
    return result


# --- abstractive -----------------------------------------------------------------------------


async def condense(
    model: Model, text: str, length: Length, style: Style, language: str | None
) -> AsyncGenerator[str, None]:
    """A chat model's summary, sentence by sentence as it is written: of the text where it fits
    into the context, else of the summaries of its parts (map-reduce). It has no more sentences
    than asked for, ends with a whole one, and is never longer than the text. A text of one
    sentence that is in the right language is its own summary.

    Raises:
        InvalidRequest: the model's context is too small for any text.
    """
    own = detect(text)
    into = language or own
    if into == own and len(sentences(text.strip(), own)) == 1:
        yield text.strip()
        return
    reduced = await _reduced(model, text, length, into)
    pieces = model.stream(_ask(reduced, length, into))
    try:
        left, count = len(text.strip()), 0
        async for sentence in _sentences(pieces, into):
            (piece,) = shaped([sentence], style)
            left -= len(piece.rstrip())
            if left < 0 or count == SENTENCES[length]:
                break
            yield piece
            left -= len(piece) - len(piece.rstrip())
            count += 1
        if count == 0:
            yield text.strip()
    finally:
        await pieces.aclose()


async def trained(model: Model, text: str, style: Style) -> str:
    """What a network writes that was trained to summarize, of each part that it can read."""
    room = max(1, model.info.context_tokens - AROUND)
    parts = [part for part in await fitting(model, text.strip(), room) if part.strip()]
    answer = await model.ask(Translate(inputs=parts))
    assert isinstance(answer, Translated)
    made = "".join(_spaced(part.strip()) for part in answer.outputs if part.strip()).strip()
    whole = sentences(made, detect(made)) if style == "bullets" else [made]
    return "".join(shaped(whole, style)).strip()


async def _reduced(model: Model, text: str, length: Length, into: str) -> str:
    """The text, or what its parts say, short enough for one call."""
    room = model.info.context_tokens - PROMPT_TOKENS - ANSWER_TOKENS["long"]
    if room < 64:
        raise InvalidRequest(
            f"this model reads {model.info.context_tokens} tokens, too few to summarize with",
            param="model",
        )
    gate = asyncio.Semaphore(AT_ONCE)

    async def part_summary(part: str) -> str:
        async with gate:
            made = await written(model, _ask(part, "medium", into))
        return made if len(made) < len(part) else part[: len(part) // 2]

    parts = await fitting(model, text, room)
    for _ in range(ROUNDS):
        if len(parts) == 1:
            break
        summaries = await together(part_summary(part) for part in parts)
        parts = await fitting(model, "\n".join(summaries), room)
    return parts[0]


async def _sentences(pieces: AsyncGenerator[str, None], language: str) -> AsyncGenerator[str, None]:
    """Whole sentences as they are complete; one that was broken off is left out, unless it is
    the only one."""
    held, told = "", False
    async for piece in pieces:
        held += piece
        *whole, held = sentences(held, language) or [""]
        for sentence in whole:
            told = told or bool(sentence.strip())
            yield sentence
    if held.strip() and (held.rstrip()[-1] in ENDS or not told):
        yield held


async def fitting(model: Model, text: str, room: int) -> list[str]:
    """Parts of at most ``room`` tokens by the model's own count, of whole sentences if they fit."""
    made: list[str] = []
    held, size = "", 0
    pieces = passages(text, max(16, room // 8))
    counts = await token_counts(model, pieces)
    for piece, count in zip(pieces, counts, strict=True):
        if held and size + count > room:
            made.append(held)
            held, size = "", 0
        if count > room:  # a script that the estimate knows little of
            made += [
                piece[at : at + max(1, len(piece) * room // (2 * count))]
                for at in range(0, len(piece), max(1, len(piece) * room // (2 * count)))
            ]
            continue
        held += piece
        size += count
    return made + ([held] if held else [])


def _ask(text: str, length: Length, language: str) -> Chat:
    words = (
        f"Summarize the text below in {name_of(language)}, in at most "
        f"{SENTENCES[length]} sentences. Write the summary only.\n\nText:\n{text.strip()}"
    )
    return Chat(
        messages=[Message(role="user", content=words)],
        sampling=Sampling(max_tokens=ANSWER_TOKENS[length], temperature=0.0),
    )

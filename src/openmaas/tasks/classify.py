"""Which labels a text has: by a network's own labels, by likeness of meaning to labels that are
given (zero-shot), or by how likely a language model is to answer with them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.inference import Message
from openmaas.tasks.asking import Model, likelihoods, logits, together, vectors
from openmaas.tasks.passages import passages

TEMPLATE = "This text is about {}."
NOTHING = "something"  # in a label's place: what a text is like that is of no label
# Cosines of sentence encoders differ by some hundredths; this makes probabilities of them.
SHARPNESS = 25.0
AT_ONCE = 8  # texts that a language model is asked about at a time
Matrix = NDArray[np.float64]


def methods(task: str) -> str:
    """How a model of this task classifies, in words for the answer."""
    return {
        "classify": "the model's own labels",
        "embed": "zero-shot by embeddings",
        "chat": "zero-shot by log-probabilities",
    }[task]


async def classify(
    model: Model,
    texts: list[str],
    labels: list[str] | None,
    *,
    multi_label: bool = False,
    template: str | None = None,
) -> tuple[list[str], Matrix]:
    """
    Args:
        labels: to choose from; ``None``: the model's own.
        multi_label: each label is a question of its own; without it they share one.
        template: a sentence with ``{}`` in the label's place.

    Returns:
        The labels, and a score in [0, 1] of each text and label (``texts × labels``). Of a
        classifier and a language model they are probabilities, of an encoder only a measure of
        likeness, which adds up to 1 where labels share.

    Raises:
        InvalidRequest: labels for a model that has its own, or none for one that has not.
    """
    info = model.info
    if info.task == "classify":
        if info.pairs:
            raise InvalidRequest("this model compares two texts; use /v1/rerank", param="model")
        if labels is not None:
            raise InvalidRequest(
                f"this model has labels of its own ({', '.join(info.labels[:20])}); leave labels "
                "out, or name an embedding or chat model for labels of your choice",
                param="labels",
            )
        many = multi_label or info.multi_label
        values = np.asarray(await _own(model, texts), np.float64)
        return info.labels, _sigmoid(values) if many else _softmax(values)
    if labels is None:
        raise InvalidRequest(
            "this model has no labels of its own: send labels, at least two", param="labels"
        )
    template = TEMPLATE if template is None else template
    if "{}" not in template:
        raise InvalidRequest("the template has no {} for the label", param="hypothesis_template")
    if info.task == "embed":
        return labels, await _by_likeness(model, texts, labels, template, multi_label)
    return labels, await _by_likelihood(model, texts, labels, multi_label)


async def _own(model: Model, texts: list[str]) -> NDArray[np.float32]:
    """Logits; of a text of several passages, their mean."""
    parts = [passages(text, _room(model)) for text in texts]
    rows = await logits(model, [part for of_one in parts for part in of_one])
    return _means(rows, parts)


async def document_vectors(model: Model, texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors of texts of any length: the mean over passages, weighted by their length."""
    parts = [passages(text, _room(model)) for text in texts]
    rows = _means(await vectors(model, [part for of_one in parts for part in of_one]), parts)
    unit: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return unit


async def _by_likeness(
    model: Model, texts: list[str], labels: list[str], template: str, multi_label: bool
) -> Matrix:
    hypotheses = [template.replace("{}", label) for label in [*labels, NOTHING]]
    documents, meanings = await asyncio.gather(
        document_vectors(model, texts), vectors(model, hypotheses)
    )
    cosines = documents.astype(np.float64) @ meanings.astype(np.float64).T
    if multi_label:
        return _sigmoid(SHARPNESS * (cosines[:, :-1] - cosines[:, -1:]))
    return _softmax(SHARPNESS * cosines[:, :-1])


async def _by_likelihood(
    model: Model, texts: list[str], labels: list[str], multi_label: bool
) -> Matrix:
    """Contextual calibration: what the model thinks of a label without any text is taken off
    (Zhao et al., 2021, "Calibrate Before Use")."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(text: str, label: str | None) -> NDArray[np.float64]:
        async with gate:
            if label is None:
                return await likelihoods(model, _which(text), labels)
            both = await likelihoods(model, _whether(text, label), ["yes", "no"])
            return np.asarray([both[0] - both[1]])

    asked = [None] if not multi_label else list(labels)
    found = await together(ask(text, each) for text in ["N/A", *texts] for each in asked)
    rows = np.concatenate(found).reshape(len(texts) + 1, len(labels))
    calibrated = rows[1:] - rows[0]
    return _sigmoid(calibrated) if multi_label else _softmax(calibrated)


def _which(text: str) -> list[Message]:
    """Of the forms tried on a small model (BBC News, 135 million parameters) by far the best: 57 %
    right, against 27 % to 32 % where the labels are listed in the question."""
    return [Message(role="user", content=f"{text}\n\nIn one word, what is the topic of this text?")]


def _whether(text: str, label: str) -> list[Message]:
    words = f"Does the label {label!r} fit this text?\n\nText: {text}\n\nAnswer with yes or no."
    return [Message(role="user", content=words)]


def _room(model: Model) -> int:
    """Tokens to aim at in one passage; the estimate is rough, and what is over is cut."""
    return max(16, model.info.context_tokens * 3 // 4)


def _means(rows: NDArray[np.float32], parts: list[list[str]]) -> NDArray[np.float32]:
    means = np.empty((len(parts), rows.shape[1]), np.float32)
    at = 0
    for number, of_one in enumerate(parts):
        weights = [len(part) for part in of_one]
        means[number] = np.average(rows[at : at + len(of_one)], axis=0, weights=weights)
        at += len(of_one)
    return means


def _softmax(values: Matrix) -> Matrix:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: Matrix = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _sigmoid(values: Matrix) -> Matrix:
    shares: Matrix = 1 / (1 + np.exp(-np.clip(values, -700, 700)))
    return shares

"""Which documents answer a query best: by a cross-encoder, or by likeness of meaning."""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.tasks.asking import Model, logits, vectors
from openmaas.tasks.classify import document_vectors


async def rerank(model: Model, query: str, documents: list[str]) -> NDArray[np.float64]:
    """A score in [0, 1] of each document: a cross-encoder's probability that it is relevant, or
    the cosine of its embedding and the query's, where 0 stands for all that is not alike.

    Raises:
        InvalidRequest: a classifier that reads single texts.
    """
    if model.info.task == "classify":
        if not model.info.pairs:
            raise InvalidRequest(
                "this model classifies single texts; reranking takes a cross-encoder or an "
                "embedding model",
                param="model",
            )
        values = await logits(model, [(query, document) for document in documents])
        return 1 / (1 + np.exp(-values[:, -1].astype(np.float64)))
    asked, found = await asyncio.gather(vectors(model, [query]), document_vectors(model, documents))
    likeness: NDArray[np.float64] = np.clip(found.astype(np.float64) @ asked[0], 0.0, 1.0)
    return likeness

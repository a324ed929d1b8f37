"""Sentence embeddings in OpenVINO: texts of many requests, sorted by length, few padded calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.inference import (
    Answer,
    Embed,
    Embedded,
    Failure,
    ModelInfo,
    Request,
    Tokenize,
    Usage,
)
from openmaas.runtimes import openvino_texts as texts
from openmaas.runtimes.openvino_calls import Text
from openmaas.runtimes.openvino_texts import TextNetwork


def open(folder: Path, options: dict[str, Any]) -> OpenVinoEmbeddings:
    """Loads an encoder and embeds a probe with it.

    Args:
        folder: as ``openvino_texts.load``; the graph answers one vector a text.
        options: as there. bfloat16 keeps a cosine above 0.9999 to float32.

    Raises:
        ConfigurationError: an option is unknown or out of range.
        ArtifactRefused: a part is missing, damaged or of another kind.
    """
    loaded = texts.load(folder, options)
    runtime = OpenVinoEmbeddings(TextNetwork(loaded), loaded.context)
    runtime.run([Embed(inputs=["a probe"])])
    return runtime


class OpenVinoEmbeddings:
    """A ``BatchRuntime`` over one encoder."""

    def __init__(self, network: TextNetwork, context: int) -> None:
        self._network = network
        self.info = ModelInfo(
            task="embed",
            runtime="openvino_embeddings",
            options=["dimensions"],
            context_tokens=context,
            dimensions=network.width,
        )

    def size(self, request: Request) -> int:
        """Tokens of a request, special ones included; they are kept for ``run``.

        Raises:
            InvalidRequest: an input is empty, too long or names a token that is not in the
                vocabulary, or ``dimensions`` is out of range.
        """
        if isinstance(request, Tokenize):
            return 1  # no engine call
        if not isinstance(request, Embed):
            raise InvalidRequest("this model makes embeddings only", param="model")
        return sum(len(text.ids) for text in self._read(request))

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Unit vectors in float32, in the order of the inputs.

        Raises:
            InvalidRequest: as ``size``.
            RuntimeError: what OpenVINO raises.
        """
        embeds = [request for request in requests if isinstance(request, Embed)]
        read = [self._read(embed) for embed in embeds]
        vectors = _unit(self._network.infer([text for of_one in read for text in of_one]))
        ends = np.cumsum([len(of_one) for of_one in read])[:-1]
        embedded = map(self._answer, embeds, read, np.split(vectors, ends))
        return [
            self._network.split(request) if isinstance(request, Tokenize) else next(embedded)
            for request in requests
        ]

    def close(self) -> None:
        """Frees the engine."""
        self._network.close()

    def _answer(self, embed: Embed, read: list[Text], rows: NDArray[np.float32]) -> Embedded:
        if embed.dimensions is not None:
            rows = _unit(rows[:, : embed.dimensions])
        self._network.forget(embed)
        return Embedded(
            dimensions=rows.shape[1],
            data=rows.astype("<f4").tobytes(),
            usage=Usage(input_tokens=sum(len(text.ids) for text in read)),
        )

    def _read(self, embed: Embed) -> list[Text]:
        if not embed.inputs:
            raise InvalidRequest("there is nothing to embed", param="input")
        most = self._network.width
        if embed.dimensions is not None and not 1 <= embed.dimensions <= most:
            raise InvalidRequest(
                f"dimensions is from 1 to {most}, got {embed.dimensions}", param="dimensions"
            )
        return self._network.read(embed, embed.inputs, truncate=embed.truncate)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))
    return unit

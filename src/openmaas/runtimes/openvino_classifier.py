"""Classifiers of texts, and of pairs of texts, in OpenVINO: a logit for each label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, InvalidRequest
from openmaas.inference import Answer, Failure, ModelInfo, Request, Score, Scored, Tokenize, Usage
from openmaas.runtimes import openvino_texts as texts
from openmaas.runtimes.openvino_calls import Text
from openmaas.runtimes.openvino_texts import Loaded, TextNetwork


def open(folder: Path, options: dict[str, Any]) -> OpenVinoClassifier:
    """Loads a classifier and lets it score a probe.

    Args:
        folder: as ``openvino_texts.load``; the graph answers a logit for each of the
            manifest's ``labels``.
        options: as there.

    Raises:
        ConfigurationError: an option is unknown or out of range.
        ArtifactRefused: a part is missing, damaged or of another kind.
    """
    runtime = OpenVinoClassifier(texts.load(folder, options))
    runtime.run([Score(inputs=["a probe"])])
    return runtime


class OpenVinoClassifier:
    """A ``BatchRuntime`` over one classifier. Texts alone are always read; pairs where the
    artifact says so, with token types if the network takes them."""

    def __init__(self, loaded: Loaded) -> None:
        self._network = TextNetwork(loaded)
        labels = loaded.manifest.get("labels")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ArtifactRefused("the classifier's manifest names no labels")
        if len(labels) != self._network.width:
            raise ArtifactRefused(
                f"the classifier answers {self._network.width} logits for {len(labels)} labels"
            )
        self.info = ModelInfo(
            task="classify",
            runtime="openvino_classifier",
            context_tokens=loaded.context,
            labels=labels,
            multi_label=loaded.manifest.get("multi_label") is True,
            pairs=loaded.manifest.get("pairs") is True,
        )

    def size(self, request: Request) -> int:
        """Tokens of a request, special ones included; they are kept for ``run``.

        Raises:
            InvalidRequest: there is no input, one is too long, or a pair for a model that reads
                texts alone.
        """
        if isinstance(request, Tokenize):
            return 1  # no engine call
        if not isinstance(request, Score):
            raise InvalidRequest("this model classifies texts only", param="model")
        return sum(len(text.ids) for text in self._read(request))

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Logits in float32, in the order of the inputs and of the labels.

        Raises:
            InvalidRequest: as ``size``.
            RuntimeError: what OpenVINO raises.
        """
        scores = [request for request in requests if isinstance(request, Score)]
        read = [self._read(score) for score in scores]
        logits = self._network.infer([text for of_one in read for text in of_one])
        ends = np.cumsum([len(of_one) for of_one in read])[:-1]
        scored = map(self._answer, scores, read, np.split(logits, ends))
        return [
            self._network.split(request) if isinstance(request, Tokenize) else next(scored)
            for request in requests
        ]

    def close(self) -> None:
        """Frees the engine."""
        self._network.close()

    def _answer(self, score: Score, read: list[Text], rows: NDArray[np.float32]) -> Scored:
        self._network.forget(score)
        return Scored(
            labels=rows.shape[1],
            data=rows.astype("<f4").tobytes(),
            usage=Usage(input_tokens=sum(len(text.ids) for text in read)),
        )

    def _read(self, score: Score) -> list[Text]:
        if not score.inputs:
            raise InvalidRequest("there is nothing to classify", param="input")
        if not self.info.pairs and any(isinstance(value, tuple) for value in score.inputs):
            raise InvalidRequest("this model reads texts, not pairs of texts", param="input")
        return self._network.read(score, score.inputs, truncate=score.truncate)

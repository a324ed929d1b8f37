"""What is explained: a text or a picture, by a server over HTTP or by an artifact in this process.

A server's explanations and those of this process are made by the same functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from quality.faithfulness import Floats, Masks, Play

from openmaas.client import Client
from openmaas.explaining import gradients, questions
from openmaas.explaining.rows import Row, RowQuestion, empty
from openmaas.explaining.texts import Text, TextQuestion
from openmaas.inference import Failure, Predict, Tensor
from openmaas.runtimes import openvino_classifier, openvino_tensors

METHODS = [*gradients.METHODS, "shapley", "kernel_shap", "occlusion"]
SAMPLED = ["smoothgrad", "shapley", "kernel_shap"]  # another seed, other attributions
BATCH = 64
TOLERANCE = 1e-2  # of integrated gradients: order is all that is judged
CHUNK = 64  # coalitions of one call

Input = Any  # a text, or a picture [height, width]
Target = str | int
Inside = Callable[[Input, Target, str, int], Floats]  # input, target, method, seed → attributions


class Kind(Protocol):
    """How a kind of inputs is explained, and what is left of one without some of its parts."""

    def target(self, given: Input) -> Target:
        """What the model answers: the likeliest label, or its place."""

    def attributions(self, given: Input, target: Target, method: str) -> Floats:
        """[parts], from ``/v1/explain``."""

    def play(self, given: Input, target: Target) -> Play:
        """Asks the server for the target's probability without some parts."""

    def parts(self, given: Input) -> int:
        """How many can be taken away."""

    def matters(self, given: Input, attributions: Floats) -> Masks:
        """Of which attributions of ``inside`` the part's removal changes the input."""

    def inside(self, folder: Path) -> Inside:
        """Explains by an artifact in this process; gradients of texts by their own unit, tokens."""


class Texts:
    """By words. A word that is taken away is not there: the text closes up."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model

    def target(self, given: Input) -> Target:
        return self._client.classify(given, model=self._model)[0].label

    def attributions(self, given: Input, target: Target, method: str) -> Floats:
        found = self._client.explain(given, self._model, method=method, target=target, unit="word")
        return _of_pieces(found["attributions"][0]["featureAttributions"], Text(given, "word"))

    def play(self, given: Input, target: Target) -> Play:
        text = Text(given, "word")

        def play(masks: Masks) -> Floats:
            told: list[float] = []
            for at in range(0, len(masks), BATCH):
                asked = [text.rendered(row) for row in masks[at : at + BATCH]]
                answers = self._client.classify(asked, model=self._model)
                told += [one.scores[str(target)] for one in answers]
            return np.array(told)

        return play

    def parts(self, given: Input) -> int:
        return len(Text(given, "word").parts)

    def matters(self, given: Input, attributions: Floats) -> Masks:
        return np.ones(len(attributions), np.bool_)

    def inside(self, folder: Path) -> Inside:
        served = InProcess(openvino_classifier.open(folder, {}))
        explainer = InProcess(_gradients(folder))

        async def explain(given: Input, target: Target, method: str, seed: int) -> Floats:
            text = Text(given, "word")
            question = TextQuestion(served, text, None, multi_label=False, template=None)
            await question.choose(target, 1)
            if method in gradients.METHODS:
                how = gradients.How(method, None, TOLERANCE, seed)
                found: Any = await gradients.of_text(
                    explainer, given, question.outputs, how, "token", "pad"
                )
            else:
                found = await _black_box(question, method, seed)
            pieces = found.attributions[0].featureAttributions
            return np.array([one.attribution for one in pieces])

        return lambda *asked: asyncio.run(explain(*asked))


class Pictures:
    """By pixels. A pixel that is taken away is 0."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model

    def target(self, given: Input) -> Target:
        return int(self._told(given[None])[0].argmax())

    def attributions(self, given: Input, target: Target, method: str) -> Floats:
        found = self._client.explain(
            given.tolist(),
            self._model,
            method=method,
            target=target,
            unit="feature",
            tolerance=TOLERANCE,
        )
        return np.array(found["attributions"][0]["featureAttributions"], np.float64).reshape(-1)

    def play(self, given: Input, target: Target) -> Play:
        def play(masks: Masks) -> Floats:
            rows = np.where(masks.reshape(-1, *given.shape), given[None], 0)
            return self._told(rows)[:, int(target)]

        return play

    def parts(self, given: Input) -> int:
        return int(given.size)

    def matters(self, given: Input, attributions: Floats) -> Masks:
        found: Masks = given.reshape(-1) != 0
        return found

    def inside(self, folder: Path) -> Inside:
        served = InProcess(openvino_tensors.open(folder, {}))
        explainer = InProcess(_gradients(folder))

        async def explain(given: Input, target: Target, method: str, seed: int) -> Floats:
            (spec,) = served.info.inputs
            row = given[None].astype(np.float32)
            tensor = Tensor(name=spec.name, datatype="FP32", shape=[*row.shape], data=row.tobytes())
            asked = Predict(inputs=[tensor])
            parted = Row(asked, empty([spec], asked, tabular=False), served.info, "feature")
            question = RowQuestion(served, parted, None)
            await question.choose(target, 1)
            if method in gradients.METHODS:
                how = gradients.How(method, None, TOLERANCE, seed)
                found: Any = await gradients.of_row(
                    explainer, parted, asked, None, question.output, question.outputs, how
                )
            else:
                found = await _black_box(question, method, seed)
            return np.array(found.attributions[0].featureAttributions, np.float64).reshape(-1)

        return lambda *asked: asyncio.run(explain(*asked))

    def _told(self, rows: Floats) -> Floats:
        parts = [rows[at : at + 4 * BATCH] for at in range(0, len(rows), 4 * BATCH)]
        answers = [self._client.predict(self._model, part.tolist()) for part in parts]
        return np.concatenate(
            [np.array(next(iter(answer.values())).rows(), np.float64) for answer in answers]
        )


class InProcess:
    """A runtime as a model that is asked. A ``tasks.asking.Model``, but for streams."""

    def __init__(self, runtime: Any) -> None:
        self.info = runtime.info
        self._runtime = runtime

    async def ask(self, request: Any) -> Any:
        self._runtime.size(request)
        (answer,) = self._runtime.run([request])
        if isinstance(answer, Failure):
            raise RuntimeError(answer.message)
        return answer


def _gradients(folder: Path) -> Any:
    from openmaas.runtimes import gradients as runtime  # JAX takes a second to load

    return runtime.open(folder, {})


async def _black_box(question: Any, method: str, seed: int) -> Any:
    budget = questions.usual_budget(question.parts)
    return await questions.answer(question, method, budget, seed, chunk=CHUNK)


def _of_pieces(pieces: list[dict[str, Any]], text: Text) -> Floats:
    """Attributions of the words, which are the text's parts here and there."""
    if [(one["start"], one["end"]) for one in pieces] != [tuple(one) for one in text.parts]:
        raise RuntimeError("the server has other words than the text here")
    return np.array([one["attribution"] for one in pieces])

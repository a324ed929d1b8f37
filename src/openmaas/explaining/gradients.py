"""Explanations by gradients: what a deployment's explainer is asked, and what its answer says."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.explaining.explanation import (
    Attribution,
    Feature,
    Method,
    Piece,
    Trust,
    Unit,
)
from openmaas.explaining.rows import Row
from openmaas.explaining.texts import Span, whole_sentences, words
from openmaas.inference import Attribute, Attributed, Predict
from openmaas.tasks.asking import Model

METHODS: dict[Method, str] = {
    "integrated_gradients": "Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks",
    "saliency": "Simonyan et al. 2013, Deep Inside Convolutional Networks",
    "smoothgrad": "Smilkov et al. 2017, SmoothGrad: removing noise by adding noise",
}
"""Those of networks whose form can be differentiated here, with their sources."""
STEPS = {"integrated_gradients": 64, "saliency": 1, "smoothgrad": 32}
ENDS = 2  # passes of the input and of the baseline themselves
MOST_STEPS = 1024  # of integrated gradients, where nobody says how many


class How(NamedTuple):
    method: Method
    budget: int | None  # points or copies at the most
    tolerance: float
    seed: int


class Found(NamedTuple):
    attributions: list[Attribution]
    trust: Trust
    forward_passes: int
    backward_passes: int


def passes(how: How) -> int:
    """Rows that go through the network, forward and back, at the most."""
    return _steps(how)[1] + ENDS


async def of_text(
    model: Model,
    text: str,
    outputs: list[tuple[list[int], str]],
    how: How,
    unit: Unit,
    baseline: str,
) -> Found:
    """
    Args:
        unit: tokens are added up to what it says.

    Raises:
        InvalidRequest: the explainer cannot read the text.
    """
    if baseline not in ("pad", "zero"):
        raise InvalidRequest(
            f"by {how.method} the baseline of a text is pad or zero; words in a part's place are "
            "for occlusion, shapley and kernel_shap",
            param="baseline",
        )
    made, answers = [], []
    for index, name in outputs:
        answer = await _ask(model, _request(how, index, text=text, baseline=baseline))
        answers.append(answer)
        values = np.frombuffer(answer.values[0].data, "<f4").astype(np.float64)
        pieces = _pieces(text, values, answer.offsets, unit)
        made.append(_attribution(answer, pieces, index, name))
    return _found(how, made, answers)


async def of_row(
    model: Model,
    row: Row,
    given: Predict,
    baseline: Predict | None,
    output: str,
    outputs: list[tuple[list[int], str]],
    how: How,
) -> Found:
    """
    Raises:
        InvalidRequest: the explainer cannot read the row.
    """
    made, answers = [], []
    for index, name in outputs:
        answer = await _ask(
            model,
            _request(
                how, index, inputs=given.inputs, output=output,
                baselines=[] if baseline is None else baseline.inputs,
            ),
        )  # fmt: skip
        answers.append(answer)
        by_name = {tensor.name: tensor for tensor in answer.values}
        arrays = [
            np.frombuffer(by_name[one].data, "<f4").astype(np.float64).reshape(shape[1:])
            for one, shape in ((tensor.name, tensor.shape) for tensor in given.inputs)
        ]
        made.append(_attribution(answer, _told(row, arrays), index, name))
    return _found(how, made, answers)


async def _ask(model: Model, request: Attribute) -> Attributed:
    answer = await model.ask(request)
    assert isinstance(answer, Attributed)
    return answer


def _steps(how: How) -> tuple[int, int]:
    """At the beginning, and at the most."""
    usual = STEPS[how.method]
    if how.method == "integrated_gradients":
        most = how.budget or MOST_STEPS
        return min(usual, most), most
    count = usual if how.method == "saliency" else min(how.budget or usual, MOST_STEPS)
    return count, count


def _request(how: How, index: list[int], **what: Any) -> Attribute:
    first, most = _steps(how)
    return Attribute(
        method=how.method,  # type: ignore[arg-type]  # one of METHODS
        index=index,
        steps=first,
        most_steps=most,
        tolerance=how.tolerance,
        seed=how.seed,
        **what,
    )


def _attribution(answer: Attributed, told: Any, index: list[int], name: str) -> Attribution:
    return Attribution(
        baselineOutputValue=answer.baseline_output,
        instanceOutputValue=answer.instance_output,
        featureAttributions=told,
        outputIndex=index,
        outputDisplayName=name,
        approximationError=answer.error,
    )


def _found(how: How, made: list[Attribution], answers: list[Attributed]) -> Found:
    errors = [one.error for one in answers if one.error is not None]
    notes, converged = [], None
    if errors:
        bounds = (
            how.tolerance * max(1.0, abs(one.instance_output - one.baseline_output))
            for one in answers
        )
        converged = all(error <= bound for error, bound in zip(errors, bounds, strict=True))
        if not converged:
            notes.append("the tolerance was not met: a larger budget comes closer")
    elif how.method == "saliency":
        notes.append(
            "saliency goes by how the answer changes here, not all the way to the baseline"
        )
    return Found(
        made,
        Trust(completeness_error=max(errors) if errors else None, converged=converged, notes=notes),
        sum(one.forward_passes for one in answers),
        sum(one.backward_passes for one in answers),
    )


def _pieces(
    text: str, values: NDArray[np.float64], offsets: list[tuple[int, int]], unit: Unit
) -> list[Piece]:
    tokens = [
        (Span(*span), float(value))
        for span, value in zip(offsets, values, strict=True)
        if span[1] > span[0]
    ]
    if unit != "token":
        spans = words(text) if unit == "word" else whole_sentences(text)
        sums = [0.0] * len(spans)
        at = 0
        for token, value in tokens:  # both are in order
            while at + 1 < len(spans) and token.start >= spans[at].end:
                at += 1
            if spans:
                sums[at] += value
        tokens = list(zip(spans, sums, strict=True))
    return [Piece(text[a:b], a, b, value) for (a, b), value in tokens]


def _told(row: Row, arrays: list[NDArray[np.float64]]) -> Any:
    if row.columns is None:
        return row.told(arrays)
    return [
        Feature(name, row.columns.get(name), float(array.sum()))
        for name, array in zip(row.names, arrays, strict=True)
    ]

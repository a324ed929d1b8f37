"""Rows that ordinary networks answered, as subjects of explanations."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from openmaas.errors import InvalidRequest
from openmaas.explaining import gradients, questions
from openmaas.explaining.explanation import Cost, Method, Unit
from openmaas.explaining.game import Progress
from openmaas.explaining.rows import Row, RowQuestion, empty, laid_out
from openmaas.gateway import kserve
from openmaas.gateway.explain import inquiry
from openmaas.gateway.explain.inquiry import Result

if TYPE_CHECKING:
    from openmaas.gateway.exchange import Exchange
    from openmaas.gateway.explain.body import How
    from openmaas.inference import Predict
    from openmaas.serving.asking import Asking

NUMBERS_AT_ONCE = 1 << 18  # of the rows of one question
ROWS_AT_ONCE, BESIDE_OTHERS = 256, 32


class RowSubject:
    """An ``inquiry.Subject``."""

    task = "predict"

    def __init__(self, exchange: Exchange, model: Asking, raw: msgspec.Raw, how: How) -> None:
        self.model = model
        self.shown = msgspec.json.decode(raw)
        inquiry.refuse_unit(how.unit, ("feature", "superpixel"), "a row")
        if how.labels is not None:
            raise InvalidRequest("labels are given for texts, not for rows", param="labels")
        info = model.info
        self._how = how
        self._given = kserve.request([raw], info)
        self._baseline = None if how.instead is None else _baseline(how.instead, info)
        values = self.shown if isinstance(self.shown, dict) else None
        if info.tabular and values is None:  # a network over a single column
            values = {info.inputs[0].name: self.shown}
        instead = self._baseline or empty(info.inputs, self._given, tabular=info.tabular)
        self._row = Row(self._given, instead, info, how.unit, values=values, image=how.image)
        self._question = RowQuestion(model, self._row, how.output)
        self.shown = laid_out(self.shown, how.image)
        by_number = how.unit != "superpixel"
        self._explainer = exchange.pipeline.explainer(exchange.ticket, model) if by_number else None
        self._seconds = exchange.limits.request_seconds

    def unit(self, method: Method) -> Unit:
        return "feature" if method in gradients.METHODS else self._row.unit

    def asked(self) -> list[Asking]:
        return [self.model, *([self._explainer] if self._explainer else [])]

    def methods(self) -> list[Method]:
        return [*(gradients.METHODS if self._explainer else ()), *questions.METHODS]

    def source(self, method: Method) -> str:
        return inquiry.source(method)

    def cost(self, method: Method) -> Cost:
        return inquiry.cost(self._how, method, lambda: self._row.parts)

    async def explain(self, method: Method, progress: Progress) -> Result:
        how, question = self._how, self._question
        await question.choose(how.target, how.top_k)
        if method in gradients.METHODS:
            explainer = self._explainer
            assert explainer is not None, "methods() says so"
            found = await inquiry.by_gradients(
                self.model,
                explainer,
                method,
                time.monotonic() + self._seconds,
                lambda: gradients.of_row(
                    explainer,
                    self._row,
                    self._given,
                    self._baseline,
                    question.output,
                    question.outputs,
                    inquiry.gradient_how(how, method),
                ),
            )
            return Result(
                found.attributions, found.trust, found.forward_passes + 1, found.backward_passes,
                self.unit(method),
            )  # fmt: skip
        budget = inquiry.black_box_budget(how, question.parts)
        size = sum(len(tensor.data) for tensor in self._given.inputs)
        chunk = max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // max(1, size)))
        answer = await questions.answer(
            question, method, budget, how.seed, chunk=chunk, small=BESIDE_OTHERS,
            busy=self.model.busy, progress=progress,
        )  # fmt: skip
        return Result(answer.attributions, answer.trust, answer.passes + 1, 0, question.unit)


def _baseline(raw: msgspec.Raw, info: Any) -> Predict:
    try:
        return kserve.request([raw], info)
    except InvalidRequest as error:
        raise InvalidRequest(
            f"the baseline is a row as the input is: {error.message}", param="baseline"
        ) from None

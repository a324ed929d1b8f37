"""Texts that were classified, as subjects of explanations."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from openmaas.errors import InvalidRequest
from openmaas.explaining import gradients, questions
from openmaas.explaining.explanation import Cost, Method, Unit
from openmaas.explaining.game import Progress
from openmaas.explaining.texts import Text, TextQuestion
from openmaas.gateway.explain import inquiry
from openmaas.gateway.explain.inquiry import Result

if TYPE_CHECKING:
    from openmaas.gateway.exchange import Exchange
    from openmaas.gateway.explain.body import How
    from openmaas.serving.asking import Asking

# Characters that the model reads at one time: some thousand tokens, or few where others call it,
# who wait for no more than that.
AT_ONCE, BESIDE_OTHERS = 4096, 192


class TextSubject:
    """An ``inquiry.Subject``. Tokens are what gradients are of, words or sentences what a black box
    is asked without."""

    task = "classify"

    def __init__(self, exchange: Exchange, model: Asking, text: str, how: How) -> None:
        self.model = model
        self.shown = text
        inquiry.refuse_unit(how.unit, ("token", "word", "sentence"), "a text")
        self._how = how
        self._explainer = exchange.pipeline.explainer(exchange.ticket, model)
        self._seconds = exchange.limits.request_seconds

    def unit(self, method: Method) -> Unit:
        if method in gradients.METHODS:
            return self._how.unit or "token"
        return self._text.unit

    def asked(self) -> list[Asking]:
        return [self.model, *([self._explainer] if self._explainer else [])]

    def methods(self) -> list[Method]:
        if self._how.unit == "token" and self._explainer is None:
            raise InvalidRequest(
                "tokens are the unit of gradients, which this model has none of; take word or "
                "sentence",
                param="unit",
            )
        # Black boxes first: on texts Shapley values were the most faithful
        # (docs/explain-quality.md), and they take nothing that is not installed.
        parts = () if self._how.unit == "token" else questions.METHODS
        return [*parts, *(gradients.METHODS if self._explainer else ())]

    def source(self, method: Method) -> str:
        return inquiry.source(method)

    def cost(self, method: Method) -> Cost:
        return inquiry.cost(self._how, method, lambda: len(self._text.parts))

    async def explain(self, method: Method, progress: Progress) -> Result:
        how = self._how
        by_gradients = method in gradients.METHODS
        text = Text(self.shown, "sentence") if by_gradients else self._text
        question = TextQuestion(
            self.model, text, how.labels, multi_label=bool(how.multi_label),
            template=how.hypothesis_template,
        )  # fmt: skip
        if isinstance(how.target, list):
            raise InvalidRequest("the target of a text is a label or its place", param="target")
        await question.choose(how.target, how.top_k)
        if by_gradients:
            explainer = self._explainer
            assert explainer is not None, "methods() says so"
            unit = self.unit(method)
            found = await inquiry.by_gradients(
                self.model,
                explainer,
                method,
                time.monotonic() + self._seconds,
                lambda: gradients.of_text(
                    explainer,
                    self.shown,
                    question.outputs,
                    inquiry.gradient_how(how, method),
                    unit,
                    _words(how, "pad"),
                ),
            )
            return Result(
                found.attributions, found.trust, found.forward_passes + 1, found.backward_passes,
                unit,
            )  # fmt: skip
        budget = inquiry.black_box_budget(how, question.parts)
        length = max(1, len(self.shown))
        answer = await questions.answer(
            question, method, budget, how.seed, chunk=max(1, min(64, AT_ONCE // length)),
            small=max(1, BESIDE_OTHERS // length), busy=self.model.busy, progress=progress,
        )  # fmt: skip
        return Result(answer.attributions, answer.trust, answer.passes + 1, 0, question.unit)

    @cached_property
    def _text(self) -> Text:
        """In parts, as a black box is asked without them."""
        unit = None if self._how.unit == "token" else self._how.unit
        return Text(self.shown, unit, _words(self._how, ""))


def _words(how: How, usual: str) -> str:
    """The baseline of a text."""
    if how.instead is None:
        return usual
    try:
        return msgspec.json.decode(how.instead, type=str)
    except msgspec.DecodeError:
        raise InvalidRequest("the baseline of a text is a text", param="baseline") from None

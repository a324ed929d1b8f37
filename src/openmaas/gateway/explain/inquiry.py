"""One explanation from its body to its result: whom to ask, by which method, at what cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import msgspec

from openmaas.errors import InsufficientMemory, InvalidRequest, Overloaded, UnsupportedParameter
from openmaas.explaining import gradients, questions
from openmaas.explaining.explanation import (
    Attribution,
    Cost,
    Explanation,
    Method,
    Trust,
    Unit,
)
from openmaas.explaining.game import PAUSE, Progress

if TYPE_CHECKING:
    from openmaas.gateway.explain.body import How
    from openmaas.serving.asking import Asking
    from openmaas.serving.deployment import Deployment


# By explainer: who asks it, and rests, while others wait for their turn.
_turns: WeakKeyDictionary[Deployment, asyncio.Lock] = WeakKeyDictionary()


class Result(NamedTuple):
    attributions: list[Attribution]
    trust: Trust
    forward_passes: int
    backward_passes: int
    unit: Unit


class Subject(Protocol):
    """What is explained: a text, a row, or an answer of a language model."""

    model: Asking
    shown: Any  # the input, for pictures
    task: str

    def asked(self) -> list[Asking]:
        """The models that were asked, with what that used."""

    def methods(self) -> list[Method]:
        """Those that can explain it, the usual one first."""

    def source(self, method: Method) -> str:
        """The method's paper."""

    def unit(self, method: Method) -> Unit:
        """What the parts are."""

    def cost(self, method: Method) -> Cost:
        """What it will take at the most.

        Raises:
            InvalidRequest: the budget is too small.
        """

    async def explain(self, method: Method, progress: Progress) -> Result:
        """
        Raises:
            OpenMaaSError
        """


class Inquiry:
    """A subject with the method that was chosen.

    Raises:
        UnsupportedParameter: the method cannot explain it; those that can are named.
        InvalidRequest: the budget is too small.
    """

    def __init__(self, id: str, subject: Subject, asked: Method | None, seed: int) -> None:
        able = subject.methods()
        if asked is not None and asked not in able:
            raise _impossible(asked, subject.model.name, able)
        self.subject = subject
        self.method = asked or able[0]
        self.cost = subject.cost(self.method)
        self.passes = (0, self.cost.forward_passes)  # done, and of how many
        self._id = id
        self._seed = seed
        self._sure = asked is not None

    async def plan(self) -> Explanation:
        """What it would be, and cost."""
        nothing = Trust(completeness_error=None, converged=None, notes=["a dry run"])
        return self._told(Result([], nothing, 0, 0, self.subject.unit(self.method)), self.cost)

    async def run(self) -> Explanation:
        """
        Raises:
            UnsupportedParameter: it turned out that the method cannot explain it.
            OpenMaaSError: the model did not answer.
        """
        began = time.monotonic()
        notes: list[str] = []
        try:
            found = await self.subject.explain(self.method, self._progress)
        except (Impossible, InsufficientMemory) as error:
            others = [one for one in self.subject.methods() if one not in gradients.METHODS]
            if self._sure or self.method not in gradients.METHODS or not others:
                raise
            notes = [f"by {others[0]}, as gradients are not to be had: {error.message}"]
            self.method = others[0]
            self.cost = self.subject.cost(self.method)
            found = await self.subject.explain(self.method, self._progress)
        trust = found.trust
        if notes:
            trust = msgspec.structs.replace(trust, notes=[*trust.notes, *notes])
        cost = Cost(
            forward_passes=found.forward_passes,
            backward_passes=found.backward_passes,
            seconds=round(time.monotonic() - began, 3),
        )
        return self._told(found._replace(trust=trust), cost)

    def _progress(self, done: int, most: int) -> None:
        self.passes = (done, most)

    def _told(self, found: Result, cost: Cost) -> Explanation:
        model = self.subject.model
        return Explanation(
            id=self._id,
            model=model.name,
            version=model.version,
            task=self.subject.task,
            method=self.method,
            source=self.subject.source(self.method),
            unit=found.unit,
            seed=self._seed,
            attributions=found.attributions,
            trust=found.trust,
            cost=cost,
        )


class Impossible(UnsupportedParameter):
    """A network cannot be differentiated here."""


def _impossible(asked: Method, model: str, able: list[Method]) -> UnsupportedParameter:
    return UnsupportedParameter(
        f"{asked} cannot explain what model {model!r} answers here; methods that can: "
        f"{', '.join(able)}",
        param="method",
    )


async def by_gradients(
    explained: Asking,
    explainer: Asking,
    method: Method,
    deadline: float,
    ask: Callable[[], Awaitable[Any]],
) -> Any:
    """Asks an explainer, which is loaded if it is not, one question after another. Where others
    call the model, it rests between them: both share a processor.

    Raises:
        Impossible: it cannot be, for what the network is made of.
        InsufficientMemory: it has no room.
    """
    deployment = explainer.deployment
    try:
        await deployment.known(deadline)
    except Overloaded:
        if deployment.state != "broken":
            raise
        raise Impossible(
            f"{method} is not possible for model {explainer.name!r}: {deployment.detail}; methods "
            f"that work for it: {', '.join(questions.METHODS)}",
            param="method",
        ) from None
    async with _turns.setdefault(deployment, asyncio.Lock()):
        began = time.monotonic()
        found = await ask()
        if explained.busy():
            await asyncio.sleep(PAUSE * (time.monotonic() - began))
        return found


def source(method: Method) -> str:
    """A method's paper."""
    return gradients.METHODS.get(method) or questions.METHODS[method]


def cost(how: How, method: Method, parts: Callable[[], int]) -> Cost:
    """
    Args:
        parts: how many the input has, for a black box.

    Raises:
        InvalidRequest: the budget is too small.
    """
    if method in gradients.METHODS:
        outputs = 1 if how.target is not None else how.top_k
        passes = outputs * gradients.passes(gradient_how(how, method))
        return Cost(forward_passes=passes + 1, backward_passes=passes)
    count = parts()
    passes = questions.passes(method, count, black_box_budget(how, count))
    return Cost(forward_passes=passes + 1)  # one to know which label is explained


def gradient_how(how: How, method: Method) -> gradients.How:
    return gradients.How(method, how.budget, how.tolerance, how.seed)


def black_box_budget(how: How, parts: int) -> int:
    return how.budget or questions.usual_budget(parts)


def refuse_unit(unit: Unit | None, able: tuple[Unit, ...], what: str) -> None:
    """
    Raises:
        InvalidRequest: the unit is of something else.
    """
    if unit is not None and unit not in able:
        raise InvalidRequest(
            f"{what} is explained by {' or '.join(able)}, not by {unit}", param="unit"
        )

"""What a language model answered, as a subject of explanations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from openmaas.errors import InvalidRequest, UnsupportedParameter
from openmaas.explaining import context, surprise
from openmaas.explaining.explanation import Attribution, Cost, Method, Piece, Trust, Unit
from openmaas.explaining.game import Progress
from openmaas.explaining.prompts import Part, PartUnit, parts
from openmaas.explaining.scoring import Scoring
from openmaas.gateway.explain import inquiry
from openmaas.gateway.explain.inquiry import Result
from openmaas.inference import Chat, Message, Sampling
from openmaas.tasks.asking import written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openmaas.gateway.explain.body import How
    from openmaas.serving.asking import Asking

SOURCES: dict[Method, str] = {
    "context_cite": "Cohen-Wang et al. 2024, ContextCite: Attributing Model Generation to Context",
    "leave_one_out": "Cook 1977, Detection of Influential Observation in Linear Regression",
    "surprise": "Shannon 1948, A Mathematical Theory of Communication",
}
PARTS_OF_PROMPTS: tuple[PartUnit, ...] = ("message", "document", "sentence", "word")
ABLATIONS = 64  # where nobody says how many
LEAST_ABLATIONS, MOST_ABLATIONS = 8, 1024
PARTS = 512  # of a conversation
ANSWER_TOKENS = 128  # of an answer that is asked for here


class AnswerSubject:
    """An ``inquiry.Subject``.

    Args:
        answer: None: the likeliest one, which the model is asked for first.
        alternatives: of each token, by surprise.
        fixed: messages that stay whole.
    """

    task = "chat"

    def __init__(
        self,
        model: Asking,
        messages: Sequence[Message],
        answer: str | None,
        how: How,
        *,
        alternatives: int = 0,
        fixed: Sequence[int] | None = None,
    ) -> None:
        self.model = model
        self.shown: Any = [{"role": one.role, "content": one.content or ""} for one in messages]
        inquiry.refuse_unit(how.unit, (*PARTS_OF_PROMPTS, "token"), "an answer")
        for param in ("target", "output", "image", "instead"):
            if getattr(how, param) is not None:
                name = "baseline" if param == "instead" else param
                raise InvalidRequest(f"{name} is not of answers of chat models", param=name)
        if how.budget is not None and not LEAST_ABLATIONS <= how.budget <= MOST_ABLATIONS:
            raise InvalidRequest(
                f"an answer is explained by {LEAST_ABLATIONS} to {MOST_ABLATIONS} ablations",
                param="budget",
            )
        self._messages = messages
        self._answer = answer
        self._how = how
        self._alternatives = alternatives
        self._fixed = fixed
        self._found: list[Part] | None = None

    def asked(self) -> list[Asking]:
        return [self.model]

    def methods(self) -> list[Method]:
        if not {"echo_logprobs", "top_echo_logprobs"} & set(self.model.info.options):
            raise UnsupportedParameter(
                f"the runtime of model {self.model.name!r} cannot say how likely an answer is, "
                "which is what its answers are explained by",
                param="model",
            )
        if self._how.unit == "token":
            return ["surprise"]
        return ["context_cite", "leave_one_out", *(() if self._how.unit else ("surprise",))]

    def source(self, method: Method) -> str:
        return SOURCES[method]

    def unit(self, method: Method) -> Unit:
        return "token" if method == "surprise" else self._how.unit or "sentence"

    def cost(self, method: Method) -> Cost:
        made = 1 if self._answer is None else 0
        if method == "surprise":
            return Cost(forward_passes=1 + made)
        count = len(self._parts())
        ablations = count if method == "leave_one_out" else self._samples()
        return Cost(forward_passes=ablations + 2 + made)

    async def explain(self, method: Method, progress: Progress) -> Result:
        answer, made = self._answer, 0
        if answer is None:
            answer, made = await self._written(), 1
        if method == "surprise":
            return await self._surprise(answer, made)
        found = self._parts()
        scoring = Scoring(self.model, self._messages, found, answer, progress)
        if method == "leave_one_out":
            shares = await context.leave_one_out(scoring, len(found))
        else:
            # The answer's length scales the penalty; the whole prompt is asked about anyway.
            await scoring(np.ones((1, len(found)), np.bool_))
            shares = await context.context_cite(
                scoring, len(found), self._samples(), self._how.seed, tokens=max(1, scoring.tokens)
            )
        pieces = [
            Piece(part.text, part.start, part.end, float(share), message=part.message)
            for part, share in zip(found, shares.attributions, strict=True)
        ]
        attribution = _attribution(answer, pieces, shares.whole, shares.nothing)
        trust = Trust(
            completeness_error=None, converged=None, fit=shares.fit, notes=_notes(shares, method)
        )
        return Result([attribution], trust, scoring.passes + made, 0, self.unit(method))

    async def _surprise(self, answer: str, made: int) -> Result:
        pieces = await surprise.surprise(self.model, self._messages, answer, self._alternatives)
        self.shown = answer
        total = sum(piece.logprob or 0.0 for piece in pieces)
        note = "in nats: 0.7 is a coin toss, 4.6 one in a hundred"
        trust = Trust(completeness_error=None, converged=None, notes=[note])
        return Result([_attribution(answer, pieces, total, None)], trust, 1 + made, 0, "token")

    async def _written(self) -> str:
        sampling = Sampling(max_tokens=ANSWER_TOKENS, temperature=0.0)
        answer = await written(self.model, Chat(messages=[*self._messages], sampling=sampling))
        if not answer:
            raise InvalidRequest("the model answers nothing that could be explained", param="input")
        return answer

    def _samples(self) -> int:
        return self._how.budget or ABLATIONS

    def _part_unit(self) -> PartUnit:
        for unit in PARTS_OF_PROMPTS:
            if unit == self._how.unit:
                return unit
        return "sentence"

    def _parts(self) -> list[Part]:
        if self._found is None:
            self._found = parts(self._messages, self._part_unit(), self._fixed)
        if not 1 <= len(self._found) <= PARTS:
            raise InvalidRequest(
                f"the conversation has {len(self._found)} parts that can be left out; from 1 to "
                f"{PARTS} can be explained",
                param="input",
            )
        return self._found


def _attribution(
    answer: str, pieces: list[Piece], whole: float, nothing: float | None
) -> Attribution:
    return Attribution(
        baselineOutputValue=nothing,
        instanceOutputValue=whole,
        featureAttributions=pieces,
        outputIndex=[0],
        outputDisplayName=answer,
        approximationError=None,
    )


def _notes(shares: context.Shares, method: Method) -> list[str]:
    notes = ["the explained number is the answer's log-probability, in nats"]
    if method == "leave_one_out":
        notes.append("a part that others repeat has no share, and neither have they")
    elif shares.fit is None:
        notes.append("the answer is as likely whatever is left out")
    elif shares.fit < 0.5:
        notes.append(
            f"the parts act together: their shares foretell {max(0.0, shares.fit):.0%} of the "
            "variance of ablations that they were not fitted to"
        )
    return notes

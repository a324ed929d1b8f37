"""Why the starter language model answers as it does, engine and all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from openmaas.explaining.context import context_cite, leave_one_out
from openmaas.explaining.prompts import parts
from openmaas.explaining.scoring import Scoring
from openmaas.explaining.surprise import surprise
from openmaas.frames import Emit
from openmaas.inference import Answer, Chat, Failure, Message, ModelInfo, Request
from openmaas.runtimes import openvino_genai
from openmaas.serving.stepping import Stepper
from tests.language_folders import smollm2_folder

__all__ = ["smollm2_folder"]

TALK = [
    Message(role="system", content="You answer briefly."),
    Message(
        role="user",
        content="The museum is closed on Monday. The secret code of the safe is 4921. "
        "The old train goes to Lisbon. What is the secret code of the safe?",
    ),
]
ANSWER = "The secret code of the safe is 4921."


class Local:
    """A ``Model`` on a worker's loop, in this process."""

    def __init__(self, runtime: openvino_genai.OpenVINOGenAI) -> None:
        self.info: ModelInfo = runtime.info
        self._runtime = runtime
        self._stepper = Stepper(runtime)
        self._count = 0
        self._answers: dict[int, Answer | Failure] = {}

    async def ask(self, request: Request) -> Answer:
        self._count += 1
        id = self._count
        self._stepper.admit(id, request)
        await asyncio.sleep(0)  # others come
        while id not in self._answers:
            for step in self._runtime.step():
                self._stepper.advance(step)
            for told in self._stepper.frame:
                assert isinstance(told, Emit)
                self._answers[told.id] = cast(Answer, told.event)
            self._stepper.frame = []
        answer = self._answers.pop(id)
        assert not isinstance(answer, Failure), answer
        return answer

    def close(self) -> None:
        self._stepper._templates.close()

    async def stream(self, request: Chat) -> AsyncGenerator[str, None]:
        raise NotImplementedError
        yield ""


@pytest.fixture(scope="module")
def model(smollm2_folder: Path) -> Iterator[Local]:
    runtime = openvino_genai.open(smollm2_folder, {"prompt_lookup": False})
    local = Local(runtime)
    yield local
    local.close()
    runtime.close()


def test_the_sentence_that_the_answer_is_from_has_the_greatest_share(model: Local) -> None:
    found = parts(TALK, "sentence")
    assert len(found) == 4
    score = Scoring(model, TALK, found, ANSWER)
    for shares in (
        asyncio.run(leave_one_out(score, len(found))),
        asyncio.run(context_cite(score, len(found), 16, 0, tokens=score.tokens)),
    ):
        assert found[int(np.argmax(shares.attributions))].text.startswith("The secret code")
        assert shares.attributions.max() > 3.0
        assert shares.whole > shares.nothing + 3.0
    assert score.passes == 16  # subsets of four sentences, each read once


def test_ablations_are_what_each_prompt_alone_gives(model: Local) -> None:
    found = parts(TALK, "sentence")
    masks = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    together = asyncio.run(Scoring(model, TALK, found, ANSWER)(masks))
    alone = [asyncio.run(Scoring(model, TALK, found, ANSWER)(mask[None])) for mask in masks]
    # 8-bit activations: another number of tokens in a pass, another rounding.
    assert together == pytest.approx(np.concatenate(alone), abs=0.8)


def test_words_and_messages_are_parts_too(model: Local) -> None:
    for unit in ("message", "word"):
        found = parts(TALK, unit)  # type: ignore[arg-type]
        values = asyncio.run(Scoring(model, TALK, found, ANSWER)(np.eye(len(found), dtype=bool)))
        assert np.isfinite(values).all()
        assert (values < 0).all()


def test_the_code_surprises_once_it_is_wrong(model: Local) -> None:
    right, wrong = (
        asyncio.run(surprise(model, TALK, text, 3))
        for text in (ANSWER, ANSWER.replace("4921", "4971"))
    )
    for pieces in (right, wrong):
        assert "".join(piece.text for piece in pieces)[:15] == ANSWER[:15]
        assert {len(piece.alternatives) for piece in pieces} == {3}
    (seven,) = [piece for piece in wrong if piece.text == "7"]
    assert seven.start == ANSWER.index("2")
    assert seven.alternatives[0].text == "2"
    assert seven.attribution > 3.0
    assert sum(piece.attribution for piece in wrong) > sum(piece.attribution for piece in right)


def test_pieces_are_text_whatever_the_tokens(model: Local) -> None:
    answer = "猫 🐈‍⬛ é"
    pieces = asyncio.run(surprise(model, TALK, answer, 1))
    assert "".join(piece.text for piece in pieces) == answer
    assert [answer[piece.start : piece.end] for piece in pieces] == [one.text for one in pieces]

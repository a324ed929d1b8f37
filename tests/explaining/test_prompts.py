"""Parts of conversations."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from openmaas.explaining.prompts import PartUnit, parts, without
from openmaas.inference import Message, ToolCall

TALK = [
    Message(role="system", content="You are brief. "),
    Message(role="user", content="My cat is grey. It is old.\n\n What is a cat?"),
    Message(role="assistant", content="A pet."),
    Message(role="user", content="The sky is blue. Grass is green. What colour is the sky?"),
]


def texts(messages: list[Message], unit: str, fixed: list[int] | None = None) -> list[str]:
    return [part.text for part in parts(messages, cast(PartUnit, unit), fixed)]


def test_sentences_of_all_messages_but_the_question() -> None:
    found = parts(TALK, "sentence")
    assert [(part.message, part.text.strip()) for part in found] == [
        (0, "You are brief."), (1, "My cat is grey."), (1, "It is old."), (1, "What is a cat?"),
        (2, "A pet."), (3, "The sky is blue."), (3, "Grass is green."),
    ]  # fmt: skip
    for part in found:
        content = TALK[part.message].content
        assert content is not None
        assert content[part.start : part.end] == part.text


def test_messages_and_words() -> None:
    assert texts(TALK, "message") == [message.content for message in TALK[:3]]
    words = texts(TALK[3:], "word")
    assert words == ["The ", "sky ", "is ", "blue. ", "Grass ", "is ", "green. "]


def test_documents_are_what_blank_lines_divide() -> None:
    told = [Message(role="user", content="One is here.\nAnd on.\n\n \nTwo.\n\nNow: which?")]
    assert texts(told, "document") == ["One is here.\nAnd on.\n\n \n", "Two.\n\n"]
    assert texts(told[:1], "document", []) == [
        "One is here.\nAnd on.\n\n \n", "Two.\n\n", "Now: which?",
    ]  # fmt: skip


def test_a_question_that_is_all_there_is_is_taken_apart() -> None:
    alone = [Message(role="user", content="What is the sky?")]
    assert texts(alone, "sentence") == ["What is the sky?"]
    assert texts(alone, "word") == ["What ", "is ", "the ", "sky?"]
    assert texts(alone, "message") == ["What is the sky?"]


def test_what_is_no_question_may_go() -> None:
    told = [Message(role="user", content="The sky is blue. Say its colour.")]
    assert texts(told, "sentence") == ["The sky is blue. ", "Say its colour."]


def test_fixed_messages_stay_and_then_the_question_may_go() -> None:
    found = texts(TALK, "sentence", [0, 1, 2])
    assert found == ["The sky is blue. ", "Grass is green. ", "What colour is the sky?"]
    assert texts(TALK, "message", [0, 1, 2, 3]) == []


def test_white_space_and_calls_are_no_parts() -> None:
    call = ToolCall(id="1", name="look", arguments="{}")
    talk = [
        Message(role="user", content=" \n\n "),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", content="Sunny.", tool_call_id="1"),
    ]
    assert texts(talk, "sentence") == ["Sunny."]
    assert texts(talk, "message") == ["Sunny."]


def test_what_is_taken_out_is_deleted_and_messages_stay() -> None:
    found = parts(TALK, "sentence")
    assert without(TALK, found, np.ones(len(found), bool)) == TALK
    none = without(TALK, found, np.zeros(len(found), bool))
    assert [message.role for message in none] == [message.role for message in TALK]
    assert [(message.content or "").strip() for message in none] == [
        "", "", "", "What colour is the sky?",
    ]  # fmt: skip
    some = np.array([part.text.startswith(("It", "Grass")) for part in found])
    left = without(TALK, found, some)
    assert (left[1].content or "").strip() == "It is old."
    assert left[3].content == "Grass is green. What colour is the sky?"


@pytest.mark.parametrize("unit", ["message", "sentence", "word"])
def test_characters_of_all_scripts(unit: str) -> None:
    talk = [Message(role="user", content="猫は灰色です。空は青い。🙂 Ça va. What is it?"), TALK[2]]
    found = parts(talk, cast(PartUnit, unit))
    kept = np.arange(len(found)) % 2 == 0
    left = without(talk, found, kept)
    gone = sum(len(part.text) for part, keep in zip(found, kept, strict=True) if not keep)
    before, after = (sum(len(one.content or "") for one in some) for some in (talk, left))
    assert before - after == gone

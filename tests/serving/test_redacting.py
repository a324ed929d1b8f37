"""What becomes of requests and of events between a caller and a model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from openmaas.errors import InvalidRequest, PersonalData
from openmaas.inference import (
    Attribute,
    Chat,
    Complete,
    Delta,
    Embed,
    Event,
    Finished,
    Loglikelihood,
    Message,
    ModelInfo,
    Predict,
    Predicted,
    Request,
    Sampling,
    Score,
    Span,
    Tag,
    Tagged,
    Tensor,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    Translate,
    Translated,
    Usage,
)
from openmaas.redaction.policy import RedactionPolicy
from openmaas.redaction.vault import Vault
from openmaas.serving.redacting import conversations, tagging
from openmaas.serving.redacting.conversations import Conversations, Name
from openmaas.serving.redacting.redaction import Redaction
from openmaas.serving.redacting.requests import elements, with_elements
from openmaas.serving.redacting.searching import INLINE, Searching

EMAIL, OTHER, IBAN = "anna.schmidt@example.org", "bob@example.com", "DE89370400440532013000"
INFO = ModelInfo(task="chat", runtime="echo", labels=["<EMAIL_1>"])
END = Finished(usage=Usage())
KINDS = ("email", "iban", "phone")
_random = random.Random(11)


@pytest_asyncio.fixture
async def searching() -> AsyncIterator[Searching]:
    made = Searching()
    yield made
    await made.stop()


async def redaction(
    searching: Searching, action: str = "hide", told: Counter[str] | None = None, **more: Any
) -> Redaction:
    policy = RedactionPolicy(action=action, kinds=KINDS, **more)  # type: ignore[arg-type]

    def tell(kinds: Any, direction: str, done: str) -> None:
        if told is not None:
            told.update({f"{direction} {kind}": count for kind, count in kinds.items()})

    return Redaction(await searching.by(policy), searching, Vault(), tell)


def said(*texts: str, **more: Any) -> Chat:
    return Chat(messages=[Message(role="user", content=text) for text in texts], **more)


def cut(text: str) -> list[str]:
    """In pieces of any length, empty ones too."""
    pieces = []
    while text:
        length = _random.choice((0, 1, 1, 1, 2, 3, 5, 8, 40))
        pieces.append(text[:length])
        text = text[length:]
    return pieces


# --- requests ------------------------------------------------------------------------------------


def everything(text: str) -> list[Request]:
    data = with_elements(Tensor(name="x", datatype="BYTES", shape=[1], data=b""), [text]).data
    tensor = Tensor(name="x", datatype="BYTES", shape=[1], data=data)
    call = ToolCall(id="c", name="f", arguments=json.dumps({"a": [text, {text: 1}]}))
    return [
        Chat(messages=[Message(role="user", content=text)]),
        Chat(messages=[Message(role="user", content="x", name=text)]),
        Chat(messages=[Message(role="assistant", tool_calls=[call])]),
        Chat(
            messages=[Message(role="user", content="x")],
            tools=[Tool(name="f", description=text, parameters={"enum": [text], text: {}})],
        ),
        said("x", sampling=Sampling(stop=[text])),
        said("x", sampling=Sampling(json_schema=json.dumps({"const": text}))),
        Complete(prompts=["x", text]),
        Embed(inputs=["x", text]),
        Predict(inputs=[tensor]),
        Score(inputs=["x", ("y", text)]),
        Tag(inputs=[text]),
        Translate(inputs=["x", text]),
        Loglikelihood(messages=[Message(role="user", content=text)], answers=["x"]),
        Loglikelihood(messages=[Message(role="user", content="x")], answers=[text]),
        Attribute(method="saliency", inputs=[tensor]),
        Attribute(method="saliency", inputs=[], baselines=[tensor]),
    ]


@pytest.mark.parametrize("number", range(len(everything(""))))
async def test_no_text_of_a_request_is_forgotten(searching: Searching, number: int) -> None:
    request = everything(f"to {EMAIL}, ö 你好")[number]
    made = await redaction(searching)
    hidden, answers = await made.request(request, INFO)
    assert answers is not None
    assert EMAIL in repr(request)
    assert EMAIL not in repr(hidden)
    assert "EMAIL_1" in repr(hidden)
    assert set(made.found) == {"email"}
    with pytest.raises(PersonalData) as caught:
        await (await redaction(searching, "block")).request(request, INFO)
    assert EMAIL not in str(caught.value)
    assert "email in " in str(caught.value)
    reporting = await redaction(searching, "report")
    same, _ = await reporting.request(request, INFO)
    assert same == request
    assert reporting.found == made.found


async def test_nothing_found_is_nothing_changed(searching: Searching) -> None:
    made = await redaction(searching)
    for request in everything('{"not": "a", "b": 1.50}'):
        assert (await made.request(request, INFO))[0] == request


async def test_what_cannot_be_searched_or_replaced_is_refused(searching: Searching) -> None:
    made = await redaction(searching)
    schema = json.dumps({"type": "string", "pattern": f"^{EMAIL}$"})
    for request, param in (
        (Complete(prompts=[[1, 2]]), "prompt"),
        (Embed(inputs=["x", [1, 2]]), "input"),
        (said("x", sampling=Sampling(json_schema=schema)), "response_format"),
        (said("x", tools=[Tool(name=IBAN)]), "tools[0].function.name"),
        (Attribute(method="saliency", text=EMAIL), "input"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await made.request(request, INFO)
        assert caught.value.param == param
        assert EMAIL not in caught.value.message


async def test_numbers_that_are_somebodys(searching: Searching) -> None:
    policy = RedactionPolicy(action="hide", kinds=("credit_card",))
    made = Redaction(
        await searching.by(policy), searching, Vault(), lambda kinds, direction, action: None
    )
    call = ToolCall(id="c", name="f", arguments='{"card": 4111111111111111, "count": 3}')
    hidden, _ = await made.request(
        Chat(messages=[Message(role="assistant", tool_calls=[call])]), INFO
    )
    (made_call,) = hidden.messages[0].tool_calls  # type: ignore[union-attr]
    assert json.loads(made_call.arguments) == {"card": "<CREDIT_CARD_1>", "count": 3}


async def test_long_texts_and_slow_patterns_go_to_a_child(searching: Searching) -> None:
    for more in ({}, {"patterns": {"order": "ORD-[0-9]{4}"}}):
        made = await redaction(searching, **more)
        filler = "The river is wide. " * (INLINE // 10 if not more else 1)
        hidden, _ = await made.request(said(f"{filler}{EMAIL} ORD-1234"), INFO)
        assert EMAIL not in repr(hidden)
        assert ("ORDER_1" in repr(hidden)) == bool(more)
    assert len(searching._children) == 1


async def test_a_child_that_is_killed_is_replaced(searching: Searching) -> None:
    long = "x " * INLINE + EMAIL
    made = await redaction(searching)
    await made.request(said(long), INFO)
    (child,) = searching._children
    os.kill(child._process.pid, 9)
    await child._process.wait()
    hidden, _ = await (await redaction(searching)).request(said(long), INFO)
    assert EMAIL not in repr(hidden)


async def test_callers_that_leave_free_their_child(searching: Searching) -> None:
    made = await redaction(searching)
    task = asyncio.ensure_future(made.request(said("x " * 200_000), INFO))
    await made.request(said("x " * INLINE), INFO)  # both have a child meanwhile
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    hidden, _ = await (await redaction(searching)).request(said("x " * INLINE + EMAIL), INFO)
    assert EMAIL not in repr(hidden)


# --- answers -------------------------------------------------------------------------------------


async def hidden_text(searching: Searching, text: str, **more: Any) -> tuple[str, Any, Redaction]:
    made = await redaction(searching)
    request, answers = await made.request(said(text, **more), INFO)
    return request.messages[0].content or "", answers, made


LETTER = (
    f"Dear {EMAIL} and {OTHER},\nthe account {IBAN} is <b>closed</b> [EMAIL_1] 你好 🙂 {EMAIL}."
)


async def test_however_an_answer_is_cut(searching: Searching) -> None:
    hidden, _, made = await hidden_text(searching, LETTER)
    for _ in range(300):
        _, answers = await made.request(said(LETTER), INFO)
        assert answers is not None
        told: dict[int, str] = {0: "", 1: ""}
        pieces = {0: cut(hidden), 1: cut(hidden)}
        covered = 0
        while any(pieces.values()):
            index = _random.choice([at for at, left in pieces.items() if left])
            some = [
                Delta(index=index, text=pieces[index].pop(0), tokens=1)
                for _ in range(min(len(pieces[index]), _random.choice((1, 1, 2, 5))))
            ]
            for event in await answers.told(some):
                told[event.index] += event.text  # type: ignore[union-attr]
                covered += event.tokens  # type: ignore[union-attr]
        fed = covered
        for event in await answers.told([Delta(index=0, finish="stop", tokens=1), END]):
            if isinstance(event, Delta):
                told[event.index] += event.text
                assert not (event.finish and event.text)
                covered += event.tokens
        for event in await answers.told([Delta(index=1, finish="length")]):
            told[event.index] += event.text  # type: ignore[union-attr]
        assert told == {0: LETTER, 1: LETTER}
        assert covered > fed


async def test_tokens_join_to_the_text(searching: Searching) -> None:
    hidden, _, made = await hidden_text(searching, LETTER)
    for _ in range(200):
        _, answers = await made.request(said(LETTER), INFO)
        assert answers is not None
        pieces = cut(hidden)
        tokens = [
            TokenLogprob(text=one, bytes=one.encode(), logprob=-1.0, alternatives=[("q", b"q", -2)])
            for one in pieces
        ]
        text, found = "", []
        events: list[Event] = [
            Delta(text=token.text, logprobs=[token], tokens=1) for token in tokens
        ]
        for event in [*events, Delta(finish="stop"), END]:
            for one in await answers.told([event]):
                if isinstance(one, Delta):
                    text += one.text
                    found += one.logprobs or []
        assert text == LETTER
        assert "".join(token.text for token in found) == LETTER
        assert b"".join(token.bytes for token in found).decode() == LETTER
        assert sum(token.logprob or 0 for token in found) == pytest.approx(-len(tokens))
        assert all(not token.alternatives for token in found if EMAIL in token.text)


async def test_arguments_stay_json(searching: Searching) -> None:
    """What is put back may have signs that JSON escapes."""
    made = await redaction(searching, patterns={"place": r'Hall "[A-Z]"\n\w+'})
    place = 'Hall "A"\nBerlin'
    _, answers = await made.request(said(f"{place} {EMAIL}"), INFO)
    assert answers is not None
    written = json.dumps({"to": "<EMAIL_1>", "at": "<PLACE_1>", "n": 1})
    for _ in range(50):
        _, answers = await made.request(said(f"{place} {EMAIL}"), INFO)
        assert answers is not None
        pieces = ["", ""]
        events: list[Event] = []
        for index in (0, 1):
            first = ToolCallDelta(index=index, id=f"call_{index}", name="send")
            events.append(Delta(tool_calls=[first]))
            events += [
                Delta(tool_calls=[ToolCallDelta(index=index, arguments=one)])
                for one in cut(written)
            ]
        ids = []
        for event in [*events, Delta(finish="tool_calls"), END]:
            for one in await answers.told([event]):
                for part in (one.tool_calls or ()) if isinstance(one, Delta) else ():
                    pieces[part.index] += part.arguments
                    ids += [part.id] if part.id else []
        assert ids == ["call_0", "call_1"]
        for piece in pieces:
            assert json.loads(piece) == {"to": EMAIL, "at": place, "n": 1}


async def test_an_answer_that_is_held_to_a_schema_stays_json(searching: Searching) -> None:
    made = await redaction(searching, patterns={"place": r'Hall "[A-Z]"'})
    schema = Sampling(json_schema='{"type":"object"}')
    _, answers = await made.request(said('at Hall "A"', sampling=schema), INFO)
    assert answers is not None
    told = await answers.told([Delta(text='{"at": "<PLACE_1>"}'), Delta(finish="stop"), END])
    text = "".join(one.text for one in told if isinstance(one, Delta))
    assert json.loads(text) == {"at": 'Hall "A"'}


@pytest.mark.parametrize("action", ["hide", "report", "block"])
async def test_what_a_model_makes_up(searching: Searching, action: str) -> None:
    told: Counter[str] = Counter()
    made = await redaction(searching, action, told)
    _, answers = await made.request(said("hello"), INFO)
    assert answers is not None
    text = "Ask carol@example.net, please."
    events: list[Event] = [*(Delta(text=one) for one in cut(text)), Delta(finish="stop"), END]
    if action == "block":
        with pytest.raises(PersonalData) as caught:
            await answers.told(events)
        assert "carol" not in caught.value.message
        assert "email" in caught.value.message
    else:
        found = [one for event in events for one in await answers.told([event])]
        heard = "".join(one.text for one in found if isinstance(one, Delta))
        assert (heard == text) == (action == "report")
        assert ("carol" in heard) == (action == "report")
        assert heard.startswith("Ask ")
        assert heard.endswith(", please.")
    assert made.made_up == {"email": 1}
    assert told == {"answer email": 1}


async def test_labels_that_a_network_learnt_stand_for_nothing(searching: Searching) -> None:
    made = await redaction(searching)
    empty = Tensor(name="x", datatype="BYTES", shape=[2], data=b"")
    request = Predict(inputs=[with_elements(empty, [EMAIL, OTHER])])
    hidden, answers = await made.request(request, INFO)
    assert answers is not None
    assert elements(hidden.inputs[0]) == ["<EMAIL_1>", "<EMAIL_1>"]
    outputs = [
        with_elements(empty, ["<EMAIL_1>", "a <EMAIL_1>"]),
    ]
    (event,) = await answers.told([Predicted(outputs=outputs, usage=Usage(rows=2))])
    assert isinstance(event, Predicted)
    assert elements(event.outputs[0]) == ["<EMAIL_1>", f"a {OTHER}"]


async def test_translations(searching: Searching) -> None:
    made = await redaction(searching)
    _, answers = await made.request(Translate(inputs=[f"to {EMAIL}", f"and {OTHER}"]), INFO)
    assert answers is not None
    given = Translated(outputs=["a < EMAIL_2 >", "para <email_1>"], logprobs=[None, None],
                       usage=Usage())  # fmt: skip
    (event,) = await answers.told([given])
    assert isinstance(event, Translated)
    assert event.outputs == [f"a {OTHER}", f"para {EMAIL}"]


async def test_spans_are_those_of_the_given_text(searching: Searching) -> None:
    made = await redaction(searching)
    text = f"Ask {EMAIL} or Anna in Rome."
    hidden, answers = await made.request(Tag(inputs=[text, "in Rome"]), INFO)
    assert answers is not None

    def span(of: str, word: str, label: str) -> Span:
        return Span(start=of.index(word), end=of.index(word) + len(word), label=label, score=1.0)

    seen = hidden.inputs[0]
    spans = [span(seen, "EMAIL", "ORG"), span(seen, "Anna", "PER"), span(seen, "Rome", "LOC")]
    given = Tagged(outputs=[spans, [span("in Rome", "Rome", "LOC")]], usage=Usage())
    (event,) = await answers.told([given])
    assert isinstance(event, Tagged)
    words = [text[one.start : one.end] for one in event.outputs[0]]
    assert words == [EMAIL, "Anna", "Rome"]
    assert event.outputs[1] == given.outputs[1]


async def test_a_task_is_hidden_where_it_comes_in(searching: Searching) -> None:
    made = await redaction(searching)
    first, second = await made.texts([f"to {EMAIL}", f"{OTHER} {EMAIL}"], "input")
    assert (first, second) == ("to <EMAIL_1>", "<EMAIL_2> <EMAIL_1>")
    again, answers = await made.request(Translate(inputs=[first]), INFO)
    assert (again, answers) == (Translate(inputs=[first]), None)
    assert await made.answered(f"{second}!") == f"{OTHER} {EMAIL}!"
    known = made.known(second)
    assert known.given == f"{OTHER} {EMAIL}"
    assert known.places.given(0, len(second)) == (0, len(known.given))


# --- models and conversations --------------------------------------------------------------------


def test_labels_of_taggers() -> None:
    kinds = {"B-PER": "person", "PERSON": "person", "I-LOC": "address", "STREET_ADDRESS": "address",
             "phone": "phone", "NATIONAL_ID": "national_id", "MISC": None, "ORG": None}  # fmt: skip
    for label, kind in kinds.items():
        assert tagging.kind_of(label) == kind
    spans = [
        Span(start=0, end=4, label="PER", score=0.9),
        Span(start=5, end=9, label="ORG", score=0.9),
        Span(start=10, end=14, label="LOC", score=0.2),
    ]
    assert [(one.kind, one.start) for one in tagging.entities(spans)] == [("person", 0)]


def test_conversations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "OF_TENANT", 3)
    monkeypatch.setattr(conversations, "AT_ONCE", 5)
    kept = Conversations()
    vaults = {id: kept.vault(Name("a", "key", id)) for id in "123"}
    assert kept.vault(Name("a", "key", "1")) is vaults["1"]
    assert kept.vault(Name("b", "key", "1")) is not vaults["1"]
    with pytest.raises(Exception, match="conversations already"):
        kept.vault(Name("a", "other", "4"))
    kept.vault(Name("b", "key", "2"))
    kept.vault(Name("b", "key", "3"))  # one too many in all: that of ("a", "2") is gone
    assert len(kept) == 5
    assert kept.vault(Name("a", "key", "2")) is not vaults["2"]
    kept.forget(1e12)
    assert len(kept) == 0
    for id in ("", "x" * 129, "a\nb"):
        with pytest.raises(InvalidRequest):
            kept.vault(Name("a", "key", id))

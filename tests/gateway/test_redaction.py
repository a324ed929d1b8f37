"""What models see of personal data, and what callers see again: through the whole server."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI
from tests.conftest import deploy_echo
from tests.gateway.redacting import EMAIL, IBAN, LETTER, PHONE, SECRETS, House, furnished
from tests.processes import serving

from openmaas.client import Client, DatasetFailed
from openmaas.redaction.policy import RedactionPolicy

POLICIES = {
    "hide": RedactionPolicy(action="hide"),
    "report": RedactionPolicy(action="report"),
    "block": RedactionPolicy(action="block"),
    "off": RedactionPolicy(),
    "long": RedactionPolicy(action="hide", conversation=True),
    "own": RedactionPolicy(
        action="hide",
        kinds=("email",),
        patterns={"order": r"ORD-[0-9]{8}"},
        words={"project": ("Blue Heron",)},
    ),
}


@pytest.fixture(scope="module")
def house(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("redaction")
    data = Path(shutil.copytree(digits_only, folder / "data"))
    log = folder / "seen.jsonl"
    keys = furnished(data, log, POLICIES)
    deploy_echo(data, "echo-slow", tokens_per_second=200)
    with serving(data) as server:
        yield House(server, keys, log)


@pytest.fixture
def client(house: House) -> Iterator[OpenAI]:
    with openai_of(house, "hide") as made:
        yield made


def openai_of(house: House, tenant: str) -> OpenAI:
    return OpenAI(base_url=f"{house.server.url}/v1", api_key=house.keys[tenant], max_retries=0)


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": user(LETTER), "max_tokens": 60} | more


def nothing_leaked(house: House) -> str:
    seen = house.seen()
    assert seen
    for secret in SECRETS:
        assert secret not in seen
    return seen


# --- language models -----------------------------------------------------------------------------


def test_a_chat(house: House, client: OpenAI) -> None:
    made = client.chat.completions.with_raw_response.create(**chat())
    content = made.parse().choices[0].message.content
    assert content is not None
    assert content.startswith(LETTER)
    assert made.headers["x-openmaas-redacted"] == "email=1, iban=1, phone=1"
    seen = nothing_leaked(house)
    assert "<EMAIL_1>" in seen


@pytest.mark.parametrize("n", [1, 3])
def test_a_stream_is_byte_for_byte_the_whole(house: House, client: OpenAI, n: int) -> None:
    whole = client.chat.completions.create(**chat(n=n))
    texts = dict.fromkeys(range(n), "")
    with client.chat.completions.create(**chat(n=n), stream=True) as stream:
        assert stream.response.headers["x-openmaas-redacted"] == "email=1, iban=1, phone=1"
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    assert [choice.message.content for choice in whole.choices] == list(texts.values())
    assert texts[0].startswith(LETTER)
    nothing_leaked(house)


def test_streams_of_many_texts(house: House, client: OpenAI) -> None:
    """Echo's tokens of three bytes cut placeholders wherever they can be cut."""
    chance = random.Random(7)
    for _ in range(40):
        words = [chance.choice([EMAIL, PHONE, IBAN, "and", "ö", "你好", "<b>", "🙂,", "x"]) for _ in
                 range(chance.randint(1, 12))]  # fmt: skip
        text = " ".join(words)
        asked = chat(messages=user(text), max_tokens=40)
        chunks = client.chat.completions.create(**asked, stream=True)
        streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        whole = client.chat.completions.create(**asked).choices[0].message.content
        assert streamed == whole
    nothing_leaked(house)


def test_usage_is_what_ran(house: House, client: OpenAI) -> None:
    made = client.chat.completions.create(**chat())
    chunks = list(
        client.chat.completions.create(
            **chat(), stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage == made.usage
    house.seen()


def test_log_probabilities_join_to_the_answer(house: House, client: OpenAI) -> None:
    made = client.chat.completions.create(**chat(logprobs=True, top_logprobs=2))
    choice = made.choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    content = choice.logprobs.content
    assert "".join(token.token for token in content) == choice.message.content
    joined = b"".join(bytes(token.bytes or ()) for token in content)
    assert joined.decode() == choice.message.content
    merged = [token for token in content if EMAIL in token.token]
    assert merged
    assert merged[0].top_logprobs == []
    assert merged[0].logprob < -1  # several tokens'
    nothing_leaked(house)


def test_completions_with_echo(house: House, client: OpenAI) -> None:
    for logprobs in (None, 1):
        made = client.completions.create(
            model="echo", prompt=[LETTER, "plain"], max_tokens=30, echo=True, logprobs=logprobs
        )
        first, second = made.choices
        assert first.text.startswith(LETTER + LETTER[:9])
        assert second.text.startswith("plain")
        if logprobs:
            assert first.logprobs is not None
            assert first.logprobs.tokens is not None
            assert "".join(first.logprobs.tokens) == first.text
    nothing_leaked(house)


def test_token_ids_are_refused(house: House) -> None:
    body = {"model": "echo", "prompt": [300, 301], "max_tokens": 4}
    for tenant in ("hide", "report", "block"):
        answer = house.post("/v1/completions", body, tenant)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "prompt"
    assert house.post("/v1/completions", body, "off").status_code == 200


def test_a_stop_string_stops_at_its_placeholder(client: OpenAI) -> None:
    made = client.chat.completions.create(**chat(stop=[EMAIL]))
    assert made.choices[0].message.content == "Write to "
    assert made.choices[0].finish_reason == "stop"


TOOL = {
    "type": "function",
    "function": {
        "name": "send",
        "description": f"Sends a letter, from {EMAIL}.",
        "parameters": {
            "type": "object",
            "properties": {"to": {"type": "string", "enum": [EMAIL, "nobody"]}},
        },
    },
}


def test_tool_calls(house: House, client: OpenAI) -> None:
    """Echo says what it was told: a call in the form that models write it in."""
    told = '<tool_call>{"name": "send", "arguments": {"to": "%s", "by": "a \\"b\\""}}</tool_call>'
    asked = {**chat(messages=user(told % EMAIL)), "tools": [TOOL], "max_tokens": 200}
    made = client.chat.completions.create(**asked)
    (call, *_) = made.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"to": EMAIL, "by": 'a "b"'}
    pieces: dict[int, str] = {}
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            for part in choice.delta.tool_calls or ():
                assert part.function is not None
                pieces[part.index] = pieces.get(part.index, "") + (part.function.arguments or "")
    assert json.loads(pieces[0]) == {"to": EMAIL, "by": 'a "b"'}
    history = [
        *user("Send it."),
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "send", "arguments": json.dumps({"to": EMAIL})},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": f"sent to {EMAIL}"},
        *user(f"To whom? {PHONE}?"),
    ]
    client.chat.completions.create(model="echo", messages=history, tools=[TOOL], max_tokens=20)
    nothing_leaked(house)


# --- policies ------------------------------------------------------------------------------------


def test_report_tells_and_leaves_the_text(house: House) -> None:
    house.seen()
    answer = house.post("/v1/chat/completions", chat(), "report")
    assert answer.headers["x-openmaas-redacted"] == "email=1, iban=1, phone=1"
    assert answer.json()["choices"][0]["message"]["content"].startswith(LETTER)
    assert EMAIL in house.seen()


def test_block_names_kinds_and_places_only(house: House) -> None:
    house.seen()
    answer = house.post("/v1/chat/completions", chat(), "block")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "content_policy_violation"
    assert error["param"] == "messages[0].content"
    assert "email" in error["message"]
    assert not any(secret in answer.text for secret in SECRETS)
    assert house.seen() == ""
    assert house.post("/v1/chat/completions", chat(messages=user("hi")), "block").is_success


def test_off_looks_at_nothing(house: House) -> None:
    answer = house.post("/v1/chat/completions", chat(), "off")
    assert "x-openmaas-redacted" not in answer.headers
    assert EMAIL in house.seen()


def test_kinds_patterns_and_words(house: House) -> None:
    text = f"ORD-12345678 of blue heron for {EMAIL}, {PHONE}"
    made = house.post("/v1/chat/completions", chat(messages=user(text)), "own")
    assert made.headers["x-openmaas-redacted"] == "email=1, order=1, project=1"
    assert made.json()["choices"][0]["message"]["content"].startswith(text)
    seen = house.seen()
    assert PHONE in seen
    assert "<ORDER_1> of <PROJECT_1> for <EMAIL_1>" in seen
    metrics = house.server.client.get("/metrics").text
    assert 'openmaas_redacted_total{action="hide",direction="request",kind="own"}' in metrics
    assert "order" not in metrics


MADE_UP = "901820 is half of it, the rest of it is +49 30"  # which echo says twice, joined


def test_what_a_model_makes_up(house: House) -> None:
    asked = chat(messages=user(MADE_UP), max_tokens=34)
    answer = house.post("/v1/chat/completions", asked)
    assert "x-openmaas-redacted" not in answer.headers
    assert answer.headers["x-openmaas-redacted-answer"] == "phone=1"
    content = answer.json()["choices"][0]["message"]["content"]
    assert content.startswith(f"{MADE_UP[:-6]}[PHONE_1]")
    told = house.post("/v1/chat/completions", asked, "report")
    assert told.headers["x-openmaas-redacted-answer"] == "phone=1"
    assert "+49 30 901820" in told.text
    refused = house.post("/v1/chat/completions", asked, "block")
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "content_policy_violation"


def test_a_stream_ends_where_a_model_makes_something_up(house: House) -> None:
    """What was sent of it before is billed, as of a stream whose client leaves."""
    asked = chat(model="echo-slow", messages=user(MADE_UP), max_tokens=34, stream=True)
    answer = house.post("/v1/chat/completions", asked, "block")
    assert answer.status_code == 200
    *chunks, error, done = [
        line.removeprefix("data: ") for line in answer.text.split("\n\n") if line
    ]
    assert done == "[DONE]"
    assert json.loads(error)["error"]["code"] == "content_policy_violation"
    told = "".join(json.loads(one)["choices"][0]["delta"].get("content", "") for one in chunks)
    assert told.startswith("901820 is half")
    assert "+49 30 901820" not in answer.text
    request = answer.headers["x-request-id"]
    rows = house.server.client.get("/v1/tenants/block/usage/rows").json()["data"]
    (row,) = [one for one in rows if one["request"] == request]
    assert row["outcome"] == "cut"
    assert 0 < row["output_tokens"] < 34


# --- conversations -------------------------------------------------------------------------------


def test_a_conversation_keeps_its_placeholders(house: House) -> None:
    named = {"x-openmaas-conversation": "c-1"}
    house.answer("/v1/chat/completions", chat(messages=user(f"I am {EMAIL}")), "long", **named)
    other = "other@example.org"
    house.answer("/v1/chat/completions", chat(messages=user(f"Or {other}")), "long", **named)
    house.seen()
    both = chat(messages=user(f"{other} {EMAIL}"))
    made = house.answer("/v1/chat/completions", both, "long", **named)
    assert made["choices"][0]["message"]["content"].startswith(f"{other} {EMAIL}")
    assert "<EMAIL_2> <EMAIL_1>" in house.seen()
    house.answer("/v1/chat/completions", both, "long", **{"x-openmaas-conversation": "c-2"})
    assert "<EMAIL_1> <EMAIL_2>" in house.seen()


def test_a_conversation_that_the_policy_has_none_of(house: House) -> None:
    answer = house.post(
        "/v1/chat/completions", chat(), "hide", **{"x-openmaas-conversation": "c-1"}
    )
    assert answer.status_code == 400
    assert "conversation" in answer.json()["error"]["message"]
    for name in ("", "x" * 129):
        headers = {"x-openmaas-conversation": name}
        assert house.post("/v1/chat/completions", chat(), "long", **headers).status_code == 400


# --- encoders and networks -----------------------------------------------------------------------


def test_embeddings_are_of_each_text_by_itself(house: House) -> None:
    texts = [f"one {EMAIL}", "two other@example.org", f"three {EMAIL}"]
    together = house.answer("/v1/embeddings", {"model": "echo-embed", "input": texts})["data"]
    for at, text in enumerate(texts):
        alone = house.answer("/v1/embeddings", {"model": "echo-embed", "input": text})["data"]
        assert alone[0]["embedding"] == together[at]["embedding"]
    seen = nothing_leaked(house)
    assert "two <EMAIL_1>" in seen


def test_texts_of_networks(house: House) -> None:
    rows = [LETTER, "plain", EMAIL]
    tensor = {"name": "x", "datatype": "BYTES", "shape": [3], "data": rows}
    made = house.answer("/v2/models/echo-predict/infer", {"inputs": [tensor]})
    assert made["outputs"][0]["data"] == rows
    seen = nothing_leaked(house)
    assert seen.count("<EMAIL_1>") == 2


def test_bytes_that_are_no_text(house: House) -> None:
    raw = b"\xff\xfe " + EMAIL.encode() + b" \x80"
    body = struct.pack("<I", len(raw)) + raw
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "BYTES", "shape": [1],
                 "parameters": {"binary_data_size": len(body)}}
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()  # fmt: skip
    answer = httpx.post(
        house.server.url + "/v2/models/echo-predict/infer",
        content=head + body,
        headers={
            "Authorization": f"Bearer {house.keys['hide']}",
            "Inference-Header-Content-Length": str(len(head)),
        },
    )
    assert answer.status_code == 200, answer.text
    assert answer.content.endswith(body)
    nothing_leaked(house)


# --- long texts ----------------------------------------------------------------------------------


def test_a_long_text_is_searched_by_a_child(house: House) -> None:
    text = "The river is wide and the boat is small. " * 400 + LETTER
    made = house.post("/v1/chat/completions", chat(messages=user(text), max_tokens=4))
    assert made.headers["x-openmaas-redacted"] == "email=1, iban=1, phone=1"
    nothing_leaked(house)


def test_refused_in_openai_clients(house: House) -> None:
    with openai_of(house, "block") as client, pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**chat(), stream=True)
    assert caught.value.code == "content_policy_violation"


# --- data sets -----------------------------------------------------------------------------------


def test_uploads_are_read_by_their_owners_policy(house: House, tmp_path: Path) -> None:
    file = tmp_path / "letters.csv"
    rows = [f'"{LETTER} {number}",{"yes" if number % 2 else "no"}' for number in range(20)]
    file.write_text("\n".join(["text,label", *rows]))
    found = {}
    for tenant in ("hide", "report", "off"):
        with Client(house.server.url, house.keys[tenant]) as client:
            made = client.datasets.upload(file)
            found[tenant] = made.description
            first = str(client.datasets.preview(made.id)["rows"][0][0])
            assert (EMAIL in first) == (tenant != "hide")
            assert ("<EMAIL_1>" in first) == (tenant == "hide")
    assert found["hide"]["redaction"] == "hide"
    assert found["hide"]["personal_data"]["text"]["email"] == 20
    assert found["report"]["personal_data"] == found["hide"]["personal_data"]
    assert found["off"].get("redaction") is None
    assert found["report"]["fingerprint"] == found["off"]["fingerprint"]
    with (
        Client(house.server.url, house.keys["block"]) as client,
        pytest.raises(DatasetFailed) as caught,
    ):
        client.datasets.upload(file)
    assert "email in 20 rows of 'text'" in str(caught.value)
    assert EMAIL not in str(caught.value)

"""Explanations over HTTP, on the starter models."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
from tests.processes import ServerProcess

SAID = "The film was wonderful, but the seats were hard."
GRADIENTS = ("integrated_gradients", "saliency", "smoothgrad")
BLACK_BOX = ("shapley", "kernel_shap", "occlusion")


def post(server: ServerProcess, body: Any, path: str = "/v1/explain") -> httpx.Response:
    return server.client.post(path, json=body)


def explained(server: ServerProcess, **body: Any) -> Any:
    response = post(server, body)
    assert response.status_code == 200, response.text
    return response.json()


def refused(server: ServerProcess, code: str = "invalid_request", **body: Any) -> str:
    response = post(server, body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, code), response.text
    return str(error["message"])


def digit(server: ServerProcess) -> list[float]:
    """A picture of 8 × 8 that lies flat."""
    ring = np.zeros((8, 8))
    ring[1:7, 2:6] = 12
    ring[2:6, 3:5] = 0
    return [float(one) for one in ring.flat]


# --- texts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", BLACK_BOX)
def test_words_of_a_text_have_shares_in_its_label(server: ServerProcess, method: str) -> None:
    made = explained(server, input=SAID, model="sentiment", method=method, target="positive")
    assert (made["model"], made["version"], made["task"]) == ("sentiment", "1", "classify")
    assert (made["method"], made["unit"]) == (method, "word")
    (one,) = made["attributions"]
    assert one["outputDisplayName"] == "positive"
    pieces = one["featureAttributions"]
    assert [piece["text"] for piece in pieces] == SAID.split()
    assert all(SAID[piece["start"] : piece["end"]] == piece["text"] for piece in pieces)
    best = max(pieces, key=lambda piece: piece["attribution"])
    assert best["text"] == "wonderful,"
    total = sum(piece["attribution"] for piece in pieces)
    gap = abs(total - (one["instanceOutputValue"] - one["baselineOutputValue"]))
    assert gap == pytest.approx(one["approximationError"], abs=1e-9)
    if method != "occlusion":
        assert gap < 1e-9
    asked = made["cost"]["forward_passes"]
    assert made["usage"]["total_tokens"] > asked  # each of them is billed


def test_what_is_explained_is_what_the_service_answers(server: ServerProcess) -> None:
    scores = server.client.post("/v1/sentiment", json={"input": SAID}).json()["data"][0]["scores"]
    made = explained(server, input=SAID, task="sentiment", method="occlusion", top_k=3)
    told = {one["outputDisplayName"]: one["instanceOutputValue"] for one in made["attributions"]}
    assert told == {one["label"]: pytest.approx(one["score"], abs=1e-4) for one in scores}
    assert [*told] == [one["label"] for one in scores]  # the likeliest first


@pytest.mark.parametrize("method", GRADIENTS)
def test_tokens_of_a_text_by_gradients(server: ServerProcess, method: str) -> None:
    made = explained(server, input=SAID, model="sentiment", method=method, target="positive")
    assert made["unit"] == "token"
    (one,) = made["attributions"]
    pieces = one["featureAttributions"]
    assert "".join(piece["text"] for piece in pieces) == SAID.replace(" ", "")
    if method == "integrated_gradients":
        assert made["trust"]["converged"] is True
        total = sum(piece["attribution"] for piece in pieces)
        gap = abs(total - (one["instanceOutputValue"] - one["baselineOutputValue"]))
        assert gap < 2e-3
    words = explained(
        server, input=SAID, model="sentiment", method=method, target="positive", unit="word"
    )["attributions"][0]["featureAttributions"]
    assert [word["text"] for word in words] == SAID.split()
    assert sum(word["attribution"] for word in words) == pytest.approx(
        sum(piece["attribution"] for piece in pieces), abs=1e-5
    )
    assert made["cost"]["backward_passes"] >= 1


def test_labels_that_the_caller_gives(server: ServerProcess) -> None:
    made = explained(
        server, input="The striker scored twice.", model="minilm-l6-v2", labels=["sport", "cooking"]
    )
    assert made["method"] == "shapley"  # an embedding model's answer has no gradients here
    (one,) = made["attributions"]
    assert one["outputDisplayName"] == "sport"
    best = max(one["featureAttributions"], key=lambda piece: piece["attribution"])
    assert best["text"] in ("striker", "scored")


def test_sentences_and_a_word_in_the_gap(server: ServerProcess) -> None:
    text = "I waited for an hour. The soup was cold! The waiter was wonderful and kind."
    made = explained(server, input=text, task="sentiment", unit="sentence", method="shapley")
    pieces = made["attributions"][0]["featureAttributions"]
    assert [piece["text"] for piece in pieces] == [
        "I waited for an hour.", "The soup was cold!", "The waiter was wonderful and kind.",
    ]  # fmt: skip
    masked = explained(
        server, input=text, task="sentiment", unit="sentence", method="shapley", baseline="Well."
    )
    assert masked["attributions"] != made["attributions"]


def test_the_same_seed_gives_the_same(server: ServerProcess) -> None:
    body = {"input": SAID + " " + SAID, "task": "sentiment", "method": "shapley", "budget": 200}
    first, again, other = [explained(server, **body, seed=seed) for seed in (1, 1, 2)]
    assert first["attributions"] == again["attributions"] != other["attributions"]
    assert first["trust"]["interval"] > 0
    for piece in first["attributions"][0]["featureAttributions"]:
        assert piece["low"] <= piece["attribution"] <= piece["high"]


# --- rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*BLACK_BOX, *GRADIENTS])
def test_pixels_of_a_picture(server: ServerProcess, method: str) -> None:
    made = explained(
        server, input=digit(server), model="digits", image=[8, 8], method=method, budget=1000
    )
    (one,) = made["attributions"]
    values = np.array(one["featureAttributions"])
    assert values.shape == (8, 8)
    asked = {"instances": [digit(server)]}
    answer = server.client.post("/v1/models/digits:predict", json=asked).json()["predictions"]
    assert one["outputIndex"] == [int(np.argmax(answer[0]))]
    assert one["instanceOutputValue"] == pytest.approx(max(answer[0]), abs=1e-3)
    if method in ("shapley", "kernel_shap", "integrated_gradients"):
        difference = one["instanceOutputValue"] - one["baselineOutputValue"]
        assert values.sum() == pytest.approx(difference, abs=2e-3)
    blank = np.array(digit(server)).reshape(8, 8) == 0
    np.testing.assert_allclose(values[blank], 0, atol=0.05)  # they are as in the baseline


def test_squares_of_pixels(server: ServerProcess) -> None:
    made = explained(
        server, input=digit(server), model="digits", image=[8, 8], unit="superpixel",
        method="occlusion",
    )  # fmt: skip
    assert made["unit"] == "superpixel"
    assert np.shape(made["attributions"][0]["featureAttributions"]) == (8, 8)
    why = refused(
        server, "unsupported_parameter", input=digit(server), model="digits", image=[8, 8],
        unit="superpixel", method="saliency",
    )  # fmt: skip
    assert "methods that can: shapley, occlusion, kernel_shap" in why


def test_a_baseline_of_ones_own(server: ServerProcess) -> None:
    given, baseline = digit(server), [1.0] * 64
    made = explained(
        server, input=given, model="digits", baseline=baseline, method="integrated_gradients"
    )
    answer = server.client.post("/v1/models/digits:predict", json={"instances": [baseline]}).json()[
        "predictions"
    ][0]
    (one,) = made["attributions"]
    assert one["baselineOutputValue"] == pytest.approx(answer[one["outputIndex"][0]], abs=1e-3)


def test_kserve_explains_instances(server: ServerProcess) -> None:
    body = {
        "instances": [digit(server), [0.0] * 64],
        "parameters": {"method": "occlusion", "target": 3},
    }
    response = post(server, body, "/v1/models/digits:explain")
    assert response.status_code == 200, response.text
    first, second = response.json()["explanations"]
    assert first["attributions"][0]["outputIndex"] == [3]
    assert not np.any(second["attributions"][0]["featureAttributions"])  # it is the baseline
    wrong = post(server, {"instances": ["x"]}, "/v1/models/digits:explain")
    assert wrong.status_code == 400
    assert isinstance(wrong.json()["error"], str)  # KServe's form


# --- cost, progress, pictures -----------------------------------------------------------------


@pytest.mark.parametrize("method", [*BLACK_BOX, *GRADIENTS])
def test_a_dry_run_says_what_it_costs_at_the_most(server: ServerProcess, method: str) -> None:
    body = {"input": SAID, "task": "sentiment", "method": method}
    said = explained(server, **body, dry_run=True)
    assert said["attributions"] == []
    assert said["usage"]["total_tokens"] == 0
    made = explained(server, **body)
    for passes in ("forward_passes", "backward_passes"):
        assert made["cost"][passes] <= said["cost"][passes]
    assert said["cost"]["forward_passes"] <= 4 * max(made["cost"]["forward_passes"], 600)


def test_it_is_billed_as_its_passes(server: ServerProcess) -> None:
    made = explained(server, input=digit(server), model="digits", method="shapley", budget=800)
    assert made["usage"]["rows"] == made["cost"]["forward_passes"]
    (row,) = [one for one in billed(server) if made["id"].endswith(one["request"])]
    assert (row["task"], row["model"], row["priority"]) == ("explain", "digits", "batch")
    assert row["rows"] == made["usage"]["rows"]


def test_a_stream_tells_how_far_it_is(server: ServerProcess) -> None:
    body = {"input": SAID * 3, "task": "sentiment", "method": "shapley", "stream": True}
    with server.client.stream("POST", "/v1/explain", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    assert events[-1]["object"] == "explanation"
    progress = [one for one in events if one["object"] == "explanation.progress"]
    done = [one["done"] for one in progress]
    assert done == sorted(done)
    assert all(one["done"] <= one["total"] for one in progress)


def test_pictures(server: ServerProcess) -> None:
    body = {"input": SAID + " <script>", "task": "sentiment", "method": "occlusion"}
    html = post(server, body | {"render": "html"})
    assert html.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in html.headers["content-security-policy"]
    assert "wonderful" in html.text
    assert "<script>" not in html.text
    png = post(server, body | {"render": "png"})
    assert png.content.startswith(b"\x89PNG\r\n\x1a\n")
    text = post(server, body | {"render": "terminal", "width": 60})
    assert "wonderful" in text.text


# --- refusals --------------------------------------------------------------------------------


def test_a_method_that_cannot_is_refused_with_those_that_can(server: ServerProcess) -> None:
    why = refused(server, "unsupported_parameter", input=SAID, task="sentiment", method="surprise")
    assert all(method in why for method in (*GRADIENTS, *BLACK_BOX))
    why = refused(
        server, "unsupported_parameter", input=SAID, model="minilm-l6-v2", labels=["a", "b"],
        method="saliency",
    )  # fmt: skip
    assert "methods that can: shapley, occlusion, kernel_shap" in why


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": " "}, "is empty"),
        ({"input": SAID, "target": "joyful"}, "no label 'joyful'; there are: "),
        ({"input": SAID, "target": 7}, "no label 7"),
        ({"input": SAID, "budget": 20, "method": "shapley"}, "a budget of 50 passes at the least"),
        ({"input": SAID, "budget": 1}, ">= 2"),
        ({"input": SAID, "unit": "superpixel"}, "by token or word or sentence"),
        ({"input": SAID, "unit": "token", "method": "shapley"}, "methods that can"),
        ({"input": SAID, "baseline": [1], "method": "shapley"}, "baseline of a text is a text"),
        ({"input": SAID, "baseline": "x", "method": "saliency"}, "pad or zero"),
        ({"input": SAID, "task": "predict"}, "explained as classify"),
        ({"input": SAID, "stream": True, "render": "png"}, "leave render out"),
        ({"input": SAID, "nonsense": 1}, "nonsense"),
        ({"input": [1, 2]}, "the input is a text"),
        ({"input": SAID, "labels": ["a", "b"]}, "labels of its own"),
    ],
)
def test_bad_texts(server: ServerProcess, body: Any, words: str) -> None:
    response = post(server, {"model": "sentiment"} | body)
    assert response.status_code == 400, response.text
    assert words in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": [1, 2, 3]}, ""),
        ({"input": "x"}, "array"),
        ({"input": [0.0] * 64, "target": 10}, "no place in 'probabilities'"),
        ({"input": [0.0] * 64, "target": "seven"}, "no label"),
        ({"input": [0.0] * 64, "output": "logits"}, "those of numbers are: probabilities"),
        ({"input": [0.0] * 64, "unit": "word"}, "by feature or superpixel"),
        ({"input": [0.0] * 64, "unit": "superpixel"}, "say image: [height, width]"),
        ({"input": [0.0] * 64, "image": [7, 9]}, "no picture of 7 × 9"),
        ({"input": [0.0] * 64, "baseline": "x"}, "the baseline is a row as the input is"),
        ({"input": [0.0] * 64, "baseline": [1.0]}, "baseline"),
        ({"input": [0.0] * 64, "labels": ["a", "b"]}, "labels are given for texts"),
    ],
)
def test_bad_rows(server: ServerProcess, body: Any, words: str) -> None:
    response = post(server, {"model": "digits", "method": "occlusion"} | body)
    assert response.status_code == 400, response.text
    assert words in response.json()["error"]["message"]


def test_no_such_model(server: ServerProcess) -> None:
    response = post(server, {"model": "nobody", "input": SAID})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


def test_the_python_client(server: ServerProcess) -> None:
    from openmaas.client import ApiError, Client

    with Client(server.url, server.key) as client:
        told: list[tuple[int, int]] = []
        made = client.explain(
            SAID, task="sentiment", method="shapley", progress=lambda *now: told.append(now)
        )
        assert made["object"] == "explanation"
        assert told
        assert client.explain(SAID, task="sentiment", dry_run=True)["attributions"] == []
        assert client.explain.page(SAID, method="occlusion").startswith("<!")
        assert client.explain.picture(SAID, method="occlusion", dark=True)[1:4] == b"PNG"
        with pytest.raises(ApiError, match="no label"):
            client.explain(SAID, task="sentiment", target="x")


# --- answers of language models ---------------------------------------------------------------

CHAT = "smollm2-135m"
FACTS = [
    {"role": "system", "content": "Answer from the facts that you are given."},
    {
        "role": "user",
        "content": "The garden is closed on Monday. Dora calls her parrot Zebulon. The bus leaves "
        "at nine. What is the name of Dora's parrot?",
    },
]


@pytest.mark.parametrize("method", ["context_cite", "leave_one_out"])
def test_which_sentence_made_the_model_say_this(server: ServerProcess, method: str) -> None:
    made = explained(server, model=CHAT, input=FACTS, answer="Zebulon", method=method, budget=16)
    assert (made["task"], made["method"], made["unit"]) == ("chat", method, "sentence")
    (one,) = made["attributions"]
    pieces = one["featureAttributions"]
    for piece in pieces:
        said = FACTS[piece["message"]]["content"]
        assert said[piece["start"] : piece["end"]] == piece["text"]
    best = max(pieces, key=lambda piece: piece["attribution"])
    assert "Zebulon" in best["text"]
    assert not any("?" in piece["text"] for piece in pieces)  # the question is asked in all
    assert one["outputDisplayName"] == "Zebulon"
    assert one["instanceOutputValue"] < 0  # a log-probability
    assert one["baselineOutputValue"] < one["instanceOutputValue"]
    assert made["cost"]["forward_passes"] <= 18
    assert made["usage"]["total_tokens"] > 100


def test_the_answer_may_be_left_to_the_model(server: ServerProcess) -> None:
    said = explained(server, model=CHAT, input=FACTS, method="leave_one_out", dry_run=True)
    made = explained(server, model=CHAT, input=FACTS, method="leave_one_out")
    assert made["attributions"][0]["outputDisplayName"].strip()
    assert made["usage"]["completion_tokens"] > 0
    assert made["cost"]["forward_passes"] <= said["cost"]["forward_passes"]


def test_how_surprised_the_model_is_at_each_token(server: ServerProcess) -> None:
    question = "What is the capital of France?"
    answer = "The capital of France is Paris."
    made = explained(
        server, model=CHAT, input=question, answer=answer, method="surprise", alternatives=3
    )
    assert made["unit"] == "token"
    (one,) = made["attributions"]
    pieces = one["featureAttributions"]
    assert "".join(piece["text"] for piece in pieces) == answer
    assert sum(piece["logprob"] for piece in pieces) == pytest.approx(one["instanceOutputValue"])
    for piece in pieces:
        assert piece["attribution"] == -piece["logprob"]
        assert len(piece["alternatives"]) == 3
    other = explained(
        server, model=CHAT, input=question, answer="The capital of France is Berlin.",
        method="surprise",
    )  # fmt: skip
    surprise = {
        piece["text"].strip(): piece["attribution"]
        for piece in (*pieces, *other["attributions"][0]["featureAttributions"])
    }
    assert surprise["Berlin"] > surprise["Paris"] + 1


def test_messages_as_parts_and_those_that_stay(server: ServerProcess) -> None:
    made = explained(
        server, model=CHAT, input=FACTS, answer="Zebulon", method="leave_one_out", unit="message",
        fixed=[1],
    )  # fmt: skip
    (piece,) = made["attributions"][0]["featureAttributions"]
    assert piece["message"] == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": CHAT, "input": FACTS, "target": 1}, "target is not of answers"),
        ({"model": CHAT, "input": FACTS, "baseline": "x"}, "baseline is not of answers"),
        ({"model": CHAT, "input": FACTS, "budget": 3}, "by 8 to 1024 ablations"),
        ({"model": CHAT, "input": [{"role": "user"}]}, "content"),
        ({"model": CHAT, "input": FACTS, "unit": "superpixel"}, "not by superpixel"),
        ({"model": CHAT, "input": FACTS, "method": "shapley"}, "methods that can: context_cite"),
        ({"model": CHAT, "input": FACTS, "task": "predict"}, "classify or chat"),
        ({"model": "sentiment", "input": SAID, "answer": "x"}, "answer is of chat models"),
    ],
)
def test_bad_conversations(server: ServerProcess, body: Any, words: str) -> None:
    response = post(server, body)
    assert response.status_code == 400, response.text
    assert words in response.json()["error"]["message"]


def test_labels_by_a_language_model(server: ServerProcess) -> None:
    made = explained(
        server, model=CHAT, input="Two goals!", labels=["sport", "cooking"], method="occlusion"
    )
    assert made["task"] == "classify"


# --- quotas, and clients that leave -----------------------------------------------------------


def test_a_quota_holds_for_what_it_asks(server: ServerProcess) -> None:
    server.client.post("/v1/tenants", json={"id": "curious"}).raise_for_status()
    key = {"name": "k", "quota": {"tokens_in_all": 400}}
    made = server.client.post("/v1/tenants/curious/keys", json=key).raise_for_status().json()
    headers = {"Authorization": f"Bearer {made['secret']}"}
    body = {"input": SAID, "model": "sentiment", "method": "shapley"}
    response = httpx.post(f"{server.url}/v1/explain", json=body, headers=headers, timeout=60)
    assert response.status_code == 429, response.text
    assert response.json()["error"]["code"] in ("insufficient_quota", "rate_limit_exceeded")
    left = httpx.get(f"{server.url}/v1/quota", headers=headers).json()["data"]
    assert all(one["used"]["all"]["tokens"] == "0" for one in left if "all" in one["used"])
    dry = httpx.post(
        f"{server.url}/v1/explain", json=body | {"dry_run": True}, headers=headers, timeout=60
    )
    assert dry.status_code == 200


def test_a_client_that_leaves_ends_it(server: ServerProcess) -> None:
    body = {"input": SAID * 12, "task": "sentiment", "method": "shapley", "budget": 60_000}
    before = ended(server)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/v1/explain", json=body, timeout=1,
            headers={"Authorization": f"Bearer {server.key}"},
        )  # fmt: skip
    server.wait_until(lambda: ended(server) == before + 1, 20)


def ended(server: ServerProcess) -> int:
    """Explanations that nobody waited for."""
    return sum((one["task"], one["outcome"]) == ("explain", "abandoned") for one in billed(server))


def billed(server: ServerProcess) -> list[Any]:
    """Every row of the ledger."""
    rows, after = [], ""
    while True:
        page = server.client.get(f"/v1/usage/rows?limit=1000&after={after}").json()
        rows += page["data"]
        if not page["has_more"]:
            return rows
        after = page["last_id"]

"""What is refused before it reaches a worker, on a real server."""

from __future__ import annotations

import pytest

from tests.processes import ServerProcess


def post(server: ServerProcess, body: dict[str, object]) -> tuple[int, dict[str, object]]:
    answer = server.client.post("/v1/chat/completions", json=body)
    return answer.status_code, answer.json().get("error")


HI = [{"role": "user", "content": "hi"}]


def test_unknown_model_names_those_that_are_there(server: ServerProcess) -> None:
    status, error = post(server, {"model": "nope", "messages": HI})
    assert status == 404
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert "digits" in str(error["message"])


def test_a_model_of_another_task(server: ServerProcess) -> None:
    status, error = post(server, {"model": "digits", "messages": HI})
    assert status == 400
    assert "predict" in str(error["message"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"logprobs": True, "top_logprobs": 3}, "top_logprobs"),
    ],
)
def test_what_a_runtime_cannot_do_is_refused_by_name(
    server: ServerProcess, fields: dict[str, object], param: str
) -> None:
    status, error = post(server, {"model": "smollm2-135m", "messages": HI, **fields})
    assert status == 400
    assert error["code"] == "unsupported_parameter"
    assert error["param"] == param


def test_what_a_caller_leaves_open_is_as_the_model_has_it(server: ServerProcess) -> None:
    body = {"model": "smollm2-135m", "messages": HI, "max_tokens": 24, "seed": 5}

    def text(**fields: float) -> str:
        answer = server.client.post("/v1/chat/completions", json=body | fields)
        return str(answer.json()["choices"][0]["message"]["content"])

    assert text() == text(temperature=0.2, top_p=0.9) == text(temperature=0.2)
    assert text() != text(temperature=1.5, top_p=1)


def test_too_many_tokens(server: ServerProcess) -> None:
    status, error = post(server, {"model": "echo", "messages": HI, "max_tokens": 4097})
    assert status == 400
    assert error["param"] == "max_tokens"


def test_too_many_prompts(server: ServerProcess) -> None:
    body = {"model": "echo", "prompt": ["a"] * 2100, "max_tokens": 1}
    answer = server.client.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"

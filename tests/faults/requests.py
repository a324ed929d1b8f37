"""Bodies and shorthands of the fault tests."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.processes import ServerProcess

DIGITS = {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}]}


def chat(model: str, text: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def ask(server: ServerProcess, model: str, text: str, **more: Any) -> httpx.Response:
    return server.client.post("/v1/chat/completions", json=chat(model, text, **more))


def predict(server: ServerProcess) -> httpx.Response:
    return server.client.post("/v2/models/digits/infer", json=DIGITS)


def in_flight(server: ServerProcess, model: str) -> float:
    """Requests that a model holds, by the server's own gauges."""
    text = server.client.get("/metrics").text
    names = ("openmaas_num_requests_running", "openmaas_num_requests_waiting")
    lines = [line for line in text.splitlines() if line.startswith(names)]
    return sum(float(line.split()[-1]) for line in lines if f'model="{model}"' in line)


def events(lines: list[str]) -> list[Any]:
    """The JSON of server-sent events; ``[DONE]`` stays a string."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]

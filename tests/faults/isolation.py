"""Requests of several tenants, each with its tenant's canary inside, and their answers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from tests.processes import ServerProcess

TENANTS = ("north", "south", "east", "west")
DEDICATED = ("north", "east")  # of them, in servers where some have replicas of their own
_random = random.Random(4)


def word() -> str:
    """Ten letters that no model says by itself."""
    return "".join(_random.choice("bdfgklmnprstvz") + _random.choice("aeiou") for _ in range(5))


CANARIES = {tenant: word() for tenant in TENANTS}
SHARED = "You answer for a small shop that sells lamps, chairs and books. " * 8


class Request(NamedTuple):
    tenant: str
    path: str
    body: dict[str, Any]


class Kind(NamedTuple):
    """A way of asking one runtime."""

    make: Callable[[str, int], tuple[str, dict[str, Any]]]  # canary and number → path and body
    share: int  # of a hundred requests
    each: int = 6  # different requests of each tenant
    says: bool = True  # its answers hold the canary, most of them


def chat(model: str, text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": text}]
    return "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 12, **more}


def _echo(canary: str, number: int) -> tuple[str, dict[str, Any]]:
    return chat("echo", f"{canary} says {number}", stream=number % 2 == 0)


def _completion(canary: str, number: int) -> tuple[str, dict[str, Any]]:
    """OpenVINO GenAI computes a sequence that is alone by another kernel, which rounds
    differently (``openvino_genai.py``); with two samples there are never fewer than two."""
    body = {"model": "smollm2-135m", "prompt": f"{number}: {canary}, {canary},", "max_tokens": 8}
    return "/v1/completions", body | {"temperature": 0, "n": 2, "stream": number % 2 == 0}


def _remembered(canary: str, number: int) -> tuple[str, dict[str, Any]]:
    """Many blocks of the KV cache, which a prefix cache would let tenants share."""
    text = f"{SHARED} The word of day {number} is {canary}. The word of day {number} is"
    body = {"model": "smollm2-135m", "prompt": text, "max_tokens": 8, "temperature": 0, "n": 2}
    return "/v1/completions", body


def _llamacpp(canary: str, number: int) -> tuple[str, dict[str, Any]]:
    body = {"model": "gemma", "prompt": f"{canary}, {canary}, {canary},", "max_tokens": 6}
    return "/v1/completions", body | {"temperature": 0, "stream": number % 2 == 0}


def _embeddings(canary: str, number: int) -> tuple[str, dict[str, Any]]:
    texts = [f"{canary} and {word} " * (1 + number) for word in ("lamp", "chair")]
    return "/v1/embeddings", {"model": "minilm-l6-v2", "input": texts}


def _classifier(canary: str, number: int) -> tuple[str, dict[str, Any]]:
    texts = [f"{canary} was {how} {number} times" for how in ("kind", "rude")]
    return "/v1/sentiment", {"model": "sentiment", "input": texts}


def _network(canary: str, number: int) -> tuple[str, dict[str, Any]]:
    drawn = random.Random(f"{canary} {number}")
    rows = 1 + number % 3
    pixels = [drawn.randrange(17) for _ in range(64 * rows)]
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [rows, 64], "data": pixels}
    return "/v2/models/digits/infer", {"id": f"{canary}-{number}", "inputs": [tensor]}


def _translator(canary: str, number: int) -> tuple[str, dict[str, Any]]:
    text = f"The word of day {number} is https://{canary}.example/. It is very good."
    return "/v1/translate", {"model": "en-pt", "input": text, "source": "en", "target": "pt"}


def _random_translator(canary: str, number: int) -> tuple[str, dict[str, Any]]:
    drawn = random.Random(f"{canary} {number}")
    text = " ".join(f"w{drawn.randrange(30)}" for _ in range(3 + number))
    return "/v1/translate", {"model": "marian", "input": text, "source": "en", "target": "pt"}


KINDS = {
    "echo": Kind(_echo, 20),
    "openvino_genai": Kind(_completion, 8),
    "openvino_genai, prefix cache": Kind(_remembered, 3, each=2),
    "llamacpp": Kind(_llamacpp, 2, each=1),
    "openvino_embeddings": Kind(_embeddings, 15, says=False),
    "openvino_classifier": Kind(_classifier, 15, says=False),
    "openvino_tensors": Kind(_network, 20),
    "openvino_translation": Kind(_translator, 10),
    "ctranslate2_translation": Kind(_random_translator, 7, says=False),
}


def requests_of(kind: str) -> list[Request]:
    """All that are different."""
    make = KINDS[kind].make
    return [
        Request(tenant, *make(canary, number))
        for tenant, canary in CANARIES.items()
        for number in range(KINDS[kind].each)
    ]


class House:
    """A key of each tenant at a server, and how to ask with it."""

    def __init__(
        self, server: ServerProcess, client: httpx.Client, dedicated: tuple[str, ...]
    ) -> None:
        self._client = client
        self._keys = {}
        for tenant in TENANTS:
            server.client.post("/v1/tenants", json={"id": tenant})
            policy = {"dedicated": tenant in dedicated}
            server.client.put(f"/v1/tenants/{tenant}/privacy", json=policy).raise_for_status()
            made = server.client.post(f"/v1/tenants/{tenant}/keys", json={"name": "isolation"})
            self._keys[tenant] = made.json()["secret"]

    def ask(self, request: Request) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._keys[request.tenant]}"}
        answer = self._client.post(request.path, json=request.body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    def interleaved(
        self, plan: list[Request], at_once: int = 24
    ) -> Iterator[tuple[Request, httpx.Response]]:
        with ThreadPoolExecutor(at_once) as pool:
            yield from zip(plan, pool.map(self.ask, plan), strict=True)


@contextmanager
def housed(server: ServerProcess, dedicated: tuple[str, ...] = ()) -> Iterator[House]:
    """
    Args:
        dedicated: tenants with replicas of their own.
    """
    limits = httpx.Limits(max_connections=32)
    with httpx.Client(base_url=server.url, timeout=120, limits=limits) as client:
        yield House(server, client, dedicated)


def content(answer: httpx.Response) -> Any:
    """An answer without what is of one time alone: ids, the clock, what a cache spared, and
    where a stream was cut."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        body = answer.json()
        gone = {"created", "usage"} | ({"id"} if "object" in body else set())
        return {name: value for name, value in body.items() if name not in gone}
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    choices = [choice for line in lines for choice in json.loads(line[6:])["choices"]]
    said: dict[int, str] = {}
    for one in choices:
        text = one.get("text") or one.get("delta", {}).get("content") or ""
        said[one["index"]] = said.get(one["index"], "") + text
    return said, [one["finish_reason"] for one in choices if one["finish_reason"]]


def canaries(answer: httpx.Response) -> set[str]:
    """Whose canaries an answer holds, anywhere."""
    told = f"{answer.headers} {answer.text} {content(answer)}"
    return {tenant for tenant, canary in CANARIES.items() if canary in told}

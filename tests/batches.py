"""Files and batches of small requests, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx

from tests.processes import ServerProcess

CHAT = "/v1/chat/completions"
FINISHED = ("completed", "failed", "expired", "cancelled")
Object = dict[str, Any]


def line(custom_id: str, body: Object | None = None, url: str = CHAT, **more: Any) -> Object:
    """A line that asks for three tokens."""
    said = {"role": "user", "content": f"said {custom_id}"}
    body = {"model": "echo", "max_tokens": 3, "messages": [said]} | (body or {})
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body} | more


def task(custom_id: str, url: str, **body: Any) -> Object:
    """A line with just that body."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(lines: Sequence[Object]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in lines).encode()


def read(content: bytes | str) -> list[Object]:
    return [json.loads(one) for one in content.splitlines()]


def send(client: httpx.Client, content: bytes, **fields: str) -> httpx.Response:
    return client.post(
        "/v1/files",
        files={"file": ("in.jsonl", content)},
        data={"purpose": "batch"} | fields,
    )


def begin(
    client: httpx.Client, lines: Sequence[Object] | bytes, endpoint: str = CHAT, **more: Any
) -> str:
    """A batch's id."""
    sent = send(client, lines if isinstance(lines, bytes) else jsonl(lines))
    assert sent.status_code == 200, sent.text
    body = {"input_file_id": sent.json()["id"], "endpoint": endpoint, "completion_window": "24h"}
    made = client.post("/v1/batches", json=body | more)
    assert made.status_code == 200, made.text
    assert made.json()["status"] == "validating"
    return str(made.json()["id"])


def look(client: httpx.Client, id: str) -> Object:
    found: Object = client.get(f"/v1/batches/{id}").json()
    return found


def finished(server: ServerProcess, client: httpx.Client, id: str, seconds: float = 60) -> Object:
    """Waits for it."""
    server.wait_until(lambda: look(client, id)["status"] in FINISHED, seconds)
    return look(client, id)


def files(client: httpx.Client, batch: Object) -> tuple[dict[str, Object], dict[str, Object]]:
    """Lines of the output and the error file, by custom_id."""
    found: list[dict[str, Object]] = []
    for name in ("output_file_id", "error_file_id"):
        lines = []
        if batch[name] is not None:
            lines = read(client.get(f"/v1/files/{batch[name]}/content").content)
        found.append({one["custom_id"]: one for one in lines})
        assert len(found[-1]) == len(lines)  # each once
    return found[0], found[1]

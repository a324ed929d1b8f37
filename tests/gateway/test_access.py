"""T1 in short form: every route × {no key, bad key, too small a scope}. The routes come from the
server's own description, so one that is added is tested without a word here."""

from __future__ import annotations

import httpx
import pytest
from tests.processes import ServerProcess, cli

OPEN = {("GET", "/health"), ("GET", "/openapi.json"), ("GET", "/v2"), ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready")}  # fmt: skip


@pytest.fixture(scope="module")
def routes(server: ServerProcess) -> list[tuple[str, str, bool]]:
    """(method, path, whether it takes an admin key) of every route."""
    document = server.client.get("/openapi.json").json()
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            admin = operation.get("x-openmaas-scope") == "admin"
            found.append((method.upper(), path.replace("{", "").replace("}", ""), admin))
    assert len(found) > 15
    return found


def test_no_key_and_bad_keys(server: ServerProcess, routes: list[tuple[str, str, bool]]) -> None:
    keys: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer om-wrong"},
        {"Authorization": f"Basic {server.key}"},
        {"x-api-key": "om-wrong"},
    ]
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for method, path, _ in routes:
            for headers in keys:
                answer = client.request(method, path, headers=headers)
                if (method, path) in OPEN:
                    assert answer.status_code != 401, (method, path)
                else:
                    assert answer.status_code == 401, (method, path, headers, answer.text)
                    assert "error" in answer.json()


def test_too_small_a_scope(server: ServerProcess, routes: list[tuple[str, str, bool]]) -> None:
    line = cli(server.data, "keys", "create", "small", "--scope", "inference")
    secret = next(word for word in line.split() if word.startswith("om-"))
    with httpx.Client(base_url=server.url, headers={"x-api-key": secret}, timeout=30) as client:
        for method, path, admin in routes:
            answer = client.request(method, path)
            if admin:
                assert answer.status_code == 403, (method, path, answer.text)
            else:
                assert answer.status_code not in (401, 403), (method, path, answer.text)


def test_request_ids_and_unknown_paths(server: ServerProcess) -> None:
    for path in ("/", "/nothing", "/v1/nothing", "/v2/nothing", "/v1/chat/completions/x"):
        answer = server.client.get(path)
        assert answer.status_code == 404
        assert answer.headers["x-request-id"].startswith("req_")
        assert "error" in answer.json()
    answer = server.client.get("/v1/chat/completions")
    assert answer.status_code == 405
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "POST" in answer.json()["error"]["message"]

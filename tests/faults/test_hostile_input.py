"""I2 and I4: numbers, texts, nesting and sizes that must not get through."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ServerProcess, serving
from tests.stores import deploy

LIMIT = 100_000
MIB = 1 << 20


@pytest.fixture(scope="module")
def bounded(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    import shutil

    data = tmp_path_factory.mktemp("bounded") / "data"
    shutil.copytree(digits_only, data)
    deploy(data, "digits")
    from tests.conftest import deploy_echo

    deploy_echo(data)
    with serving(data, OPENMAAS_LIMITS_BODY_BYTES=str(LIMIT)) as running:
        yield running


def chat_with(field: str) -> bytes:
    start = '{"model":"echo","messages":[{"role":"user","content":"hi"}],'
    return f"{start}{field}}}".encode("utf-8", "surrogatepass")


CHAT = [
    '"temperature":NaN',
    '"temperature":1e309',
    '"temperature":-1',
    '"temperature":9223372036854775808',
    '"max_tokens":-9223372036854775808',
    '"max_tokens":9223372036854775808',
    '"max_tokens":1e3000',
    '"max_tokens":0',
    '"n":1000000',
    '"n":-1',
    '"n":1.5',
    '"seed":18446744073709551616',
    '"top_logprobs":21,"logprobs":true',
    '"stop":[1]',
    '"stop":["' + "x" * 50_000 + '"]',
    '"logit_bias":{"not a number":1}',
    '"logit_bias":{"-1":1}',
    '"unknown_field":1',
    '"user":"\\ud800"',
    '"user":"\udfff"',
    '"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":'
    + '{"items":' * 200
    + "{}"
    + "}" * 200
    + "}}",
    '"tools":' + "[" * 40_000 + "]" * 40_000,
]


@pytest.mark.parametrize("field", CHAT, ids=lambda field: field[:40])
def test_bad_chat_fields(bounded: ServerProcess, field: str) -> None:
    answer = bounded.client.post(
        "/v1/chat/completions",
        content=chat_with(field),
        headers={"content-type": "application/json"},
    )
    assert 400 <= answer.status_code < 500, answer.text
    error = strict(answer.content)["error"]
    assert set(error) == {"message", "type", "param", "code"}


BODIES = [
    b"",
    b"\x00",
    b"[]",
    b"null",
    b"{",
    b'"',
    b"\xff\xfe",
    b"[" * 49_000 + b"]" * 49_000,
    b'{"a":' * 15_000 + b"1" + b"}" * 15_000,
    b'{"model":"\x00"}',
]
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v2/models/digits/infer",
         "/v1/models/digits:predict"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:10]))
def test_bad_bodies(bounded: ServerProcess, path: str, body: bytes) -> None:
    answer = bounded.client.post(path, content=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert "error" in strict(answer.content)


def test_nesting_of_250_000(digits_only: Path, server: ServerProcess) -> None:
    for path in PATHS:
        answer = server.client.post(path, content=b"[" * 250_000 + b"]" * 250_000)
        assert answer.status_code == 400
        answer = server.client.post(
            path, content=b'{"inputs":' + b"[" * 250_000 + b"]" * 250_000 + b"}"
        )
        assert answer.status_code == 400


def test_a_nul_character_is_only_a_character(bounded: ServerProcess) -> None:
    body = {"model": "echo", "messages": [{"role": "user", "content": "a \x00 b"}]}
    answer = bounded.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert "\x00" in strict(answer.content)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("value", ["NaN", "1e309", "[[1]]", '"x"', "null", "true"])
def test_bad_tensor_elements(bounded: ServerProcess, value: str) -> None:
    row = ",".join(["0"] * 63 + [value])
    body = f'{{"inputs":[{{"name":"pixels","datatype":"FP32","shape":[1,64],"data":[{row}]}}]}}'
    answer = bounded.client.post("/v2/models/digits/infer", content=body.encode())
    assert answer.status_code == 400, answer.text
    assert list(strict(answer.content)) == ["error"]


@pytest.mark.parametrize("shape", ["[-1,64]", "[1]", "[9223372036854775807,64]", "[0,64]", "[64,1]",
                                   "[4294967296,4294967296]", "[1.5,64]", "[]"])  # fmt: skip
def test_bad_shapes(bounded: ServerProcess, shape: str) -> None:
    row = ",".join(["0"] * 64)
    body = f'{{"inputs":[{{"name":"pixels","datatype":"FP32","shape":{shape},"data":[{row}]}}]}}'
    answer = bounded.client.post("/v2/models/digits/infer", content=body.encode())
    assert answer.status_code in (400, 413), answer.text


def padded(size: int) -> bytes:
    """A valid chat body of exactly so many bytes."""
    body = b'{"model":"echo","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}'
    return body + b" " * (size - len(body))


def test_the_limit_by_length(bounded: ServerProcess) -> None:
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413)):
        answer = bounded.client.post("/v1/chat/completions", content=padded(size))
        assert answer.status_code == status


def test_the_limit_in_chunks(bounded: ServerProcess) -> None:
    def chunks(size: int) -> Iterator[bytes]:
        body = padded(size)
        for start in range(0, size, 7_000):
            yield body[start : start + 7_000]

    for size, status in ((LIMIT, 200), (LIMIT + 1, 413)):
        answer = bounded.client.post("/v1/chat/completions", content=chunks(size))
        assert answer.status_code == status


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_the_limit_compressed(bounded: ServerProcess, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413)):
        answer = bounded.client.post(
            "/v1/chat/completions",
            content=pack(padded(size)),
            headers={"content-encoding": encoding},
        )
        assert answer.status_code == status


def test_a_decompression_bomb_costs_no_memory(bounded: ServerProcess) -> None:
    bomb = gzip.compress(b" " * (64 * MIB))
    assert len(bomb) < LIMIT
    before = bounded.rss()
    for _ in range(20):
        answer = bounded.client.post(
            "/v1/chat/completions", content=bomb, headers={"content-encoding": "gzip"}
        )
        assert answer.status_code == 413
    assert bounded.rss() - before < 8 * MIB


def test_an_encoding_that_is_not_read(bounded: ServerProcess) -> None:
    answer = bounded.client.post(
        "/v1/chat/completions", content=padded(100), headers={"content-encoding": "br"}
    )
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "body", [gzip.compress(padded(100))[:-9], b"not gzip", b""], ids=["cut", "other", "empty"]
)
def test_broken_compression(bounded: ServerProcess, body: bytes) -> None:
    answer = bounded.client.post(
        "/v1/chat/completions", content=body, headers={"content-encoding": "gzip"}
    )
    assert answer.status_code == 400


def test_an_absurd_content_length(bounded: ServerProcess) -> None:
    import socket

    host, port = bounded.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
            + f"Authorization: Bearer {bounded.key}\r\n".encode()
            + b"Content-Length: 99999999999999\r\n\r\n"
        )
        assert b" 413 " in raw.recv(4096)


def strict(body: bytes) -> dict[str, object]:
    """JSON without NaN or Infinity, which Python's reader would let through."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(body, parse_constant=refuse)

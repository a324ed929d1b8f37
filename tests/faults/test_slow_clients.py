"""F7 in short form: clients that send or read too slowly cost the others nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from urllib.parse import urlsplit

from tests.faults.requests import chat, predict
from tests.processes import ServerProcess

MIB = 1 << 20
LORISES = 100
READERS = 20


def connect(server: ServerProcess) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0))


def head(server: ServerProcess, path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def test_slow_senders_and_readers_cost_the_others_nothing(patient: ServerProcess) -> None:
    before = patient.rss()
    lorises = [connect(patient) for _ in range(LORISES)]
    for number, one in enumerate(lorises):
        whole = head(patient, "/v2/models/digits/infer", 1000)
        one.sendall(whole[: 20 + number] if number % 2 else whole + b'{"inp')
    # An answer of some 400 kB each, of which nobody reads a byte; the sockets' own buffers are
    # kept small, so that what is not read stays with the server.
    readers = []
    for _ in range(READERS):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        parts = urlsplit(patient.url)
        one.connect((parts.hostname, parts.port))
        body = json.dumps(chat("fast", "abc", stream=True, max_tokens=2000, n=1)).encode()
        one.sendall(head(patient, "/v1/chat/completions", len(body)) + body)
        readers.append(one)
    until = time.monotonic() + 3
    statuses = []
    while time.monotonic() < until:
        for one in lorises[::2]:
            with contextlib.suppress(OSError):  # in the middle of a name it is a bad request
                one.sendall(b" ")
        statuses.append(predict(patient).status_code)
    assert set(statuses) == {200}
    assert patient.rss() - before < (READERS + 10) * MIB  # at the most one each, and their sockets
    for one in (*lorises, *readers):
        one.close()
    assert predict(patient).status_code == 200

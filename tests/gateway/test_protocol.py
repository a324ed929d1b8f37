"""Requests that begin and never come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from openmaas import app
from openmaas.config import Limits
from openmaas.errors import OpenMaaSError
from openmaas.gateway import protocol
from openmaas.gateway.exchange import Exchange


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body."""
    if scope["type"] != "http":
        return
    one = Exchange(scope, receive, send, "req_1")
    one.limits = Limits()
    try:
        await one.respond(str(len(await one.body())).encode())
    except OpenMaaSError as error:
        await one.fail(error)


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(protocol, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(app, "TICKS", 1)
    config = uvicorn.Config(
        application, port=0, http=protocol.Protocol, ws="none", lifespan="off", log_level="warning"
    )
    server = app._Graceful(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn tells it no other way
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


async def talk(port: int, *parts: bytes, pause: float = 0.1) -> bytes:
    """What the server says to what is sent piece by piece; it must end the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"


async def test_a_head_that_trickles_is_given_up(port: int) -> None:
    assert await talk(port) == b""
    assert await talk(port, *(HEAD[at : at + 1] for at in range(10))) == b""


async def test_a_body_that_stops_is_given_up(port: int) -> None:
    assert await talk(port, HEAD + b"ab") == b""


async def test_slow_but_steady_is_served(port: int) -> None:
    answer = await talk(port, HEAD, b"a", b"b", b"c", b"d", pause=0.15)
    assert answer.endswith(b"4")


async def test_an_idle_connection_between_requests_is_kept(port: int) -> None:
    again = HEAD.replace(b"close", b"keep-alive")
    answer = await talk(port, again + b"abcd", again + b"abcd", HEAD + b"abcd", pause=0.5)
    assert answer.count(b"HTTP/1.1 200") == 3

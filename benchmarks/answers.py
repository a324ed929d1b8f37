"""Load generator that notes who answered: so many connections, each asking without a pause.

Usage: ``answers.py URL BODY CONNECTIONS SECONDS KEY``; BODY is a file. Prints a line for each
answer: when it was asked and how long it took (seconds on ``time.monotonic()``), its status (0:
none came), the version that its body names and the one that its header names.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

BODY = re.compile(rb'"model_version":"(\d+)"')
TIMEOUT_SECONDS = 30.0
HEADER = re.compile(rb"x-openmaas-model: [^@\r]+@(\d+)")


async def ask(url: str, body: bytes, until: float, key: str, lines: list[str]) -> None:
    parts = urlsplit(url)
    request = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nAuthorization: Bearer {key}\r\n\r\n"
    ).encode() + body
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    while (began := time.monotonic()) < until:
        try:
            writer.write(request)
            async with asyncio.timeout(TIMEOUT_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
                answer = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            lines.append(f"{began:.4f} {time.monotonic() - began:.5f} 0 - -")
            writer.close()
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            continue
        took = time.monotonic() - began
        told, header = BODY.search(answer), HEADER.search(head)
        lines.append(
            f"{began:.4f} {took:.5f} {head[9:12].decode()} "
            f"{told[1].decode() if told else '-'} {header[1].decode() if header else '-'}"
        )
    writer.close()


async def run(url: str, body: bytes, connections: int, seconds: float, key: str) -> list[str]:
    lines = list[str]()
    until = time.monotonic() + seconds
    await asyncio.gather(*(ask(url, body, until, key, lines) for _ in range(connections)))
    return lines


if __name__ == "__main__":
    url, path, connections, seconds, key = sys.argv[1:6]
    body = Path(path).read_bytes()
    print("\n".join(asyncio.run(run(url, body, int(connections), float(seconds), key))))

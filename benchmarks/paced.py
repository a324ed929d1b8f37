"""Load generator at a steady pace: requests leave on time whether or not answers have come.

Usage: ``paced.py URL BODIES PER_SECOND SECONDS KEY [WARM_UP]``. Prints one JSON line: each answer's
milliseconds from the moment that its request was due, sorted, and how many failed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

WARM_UP = 50  # requests that are not counted, where nothing else is said


class Connection:
    """A kept-alive connection, used by one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._reader: asyncio.StreamReader | None = None

    async def ask(self, head: bytes, body: bytes) -> bool:
        if self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        self._writer.write(head + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        chunked = False
        for line in answer.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            chunked |= name.lower() == b"transfer-encoding"
        if chunked:
            await self._reader.readuntil(b"0\r\n\r\n")
        else:
            await self._reader.readexactly(length)
        return answer.startswith(b"HTTP/1.1 200")


async def run(
    url: str, bodies: list[bytes], pace: float, seconds: float, key: str, warm_up: int
) -> None:
    parts = urlsplit(url)
    free: list[Connection] = []
    times: list[float] = []
    failed = 0

    async def one(number: int, due: float) -> None:
        nonlocal failed
        body = bodies[number % len(bodies)]
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Authorization: Bearer {key}\r\n\r\n"
        ).encode()
        connection = free.pop() if free else Connection(parts.hostname or "", parts.port or 80)
        good = await connection.ask(head, body)
        if number >= warm_up:
            times.append((time.perf_counter() - due) * 1000)
            failed += not good
        free.append(connection)

    began = time.perf_counter()
    running = []
    for number in range(int(pace * seconds) + warm_up):
        due = began + number / pace
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*running)
    print(json.dumps({"ms": [round(t, 3) for t in sorted(times)], "failed": failed}))


if __name__ == "__main__":
    lines = Path(sys.argv[2]).read_bytes().splitlines()
    warm_up = int(sys.argv[6]) if len(sys.argv) > 6 else WARM_UP
    asyncio.run(
        run(sys.argv[1], lines, float(sys.argv[3]), float(sys.argv[4]), sys.argv[5], warm_up)
    )

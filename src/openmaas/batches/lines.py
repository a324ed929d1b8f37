"""Lines of a batch: how they are read, and how their answers are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import msgspec

BLOCK_BYTES = 1 << 20  # that are read ahead, or one line
REST_EVERY = 1 << 18  # bytes after which a thread that reads lets the event loop go first …
REST_SECONDS = 0.002  # … for so long


class Input(msgspec.Struct):
    """A line as its owner wrote it; whether its fields make sense is looked at elsewhere."""

    custom_id: Any = None
    method: Any = None
    url: Any = None
    body: msgspec.Raw = msgspec.Raw()


class Line(NamedTuple):
    """A line that is to be asked."""

    number: int  # from 1
    offset: int  # where it is in its file
    custom_id: str
    body: bytes


class Response(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class LineError(msgspec.Struct):
    code: str | None
    message: str


class Output(msgspec.Struct):
    """A line of an output or error file."""

    id: str
    custom_id: str
    response: Response | None
    error: LineError | None


Opens = Callable[[], BinaryIO]
"""Opens the file of the lines, at its beginning."""

_decode = msgspec.json.Decoder(Input).decode


def rested(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of a file that may be long, read so that whoever waits for the event loop need not."""
    size = 0
    for line in lines:
        yield line
        size += len(line)
        if size >= REST_EVERY:
            size = 0
            time.sleep(REST_SECONDS)


def raw_lines(opens: Opens, offset: int = 0, number: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line that is not blank.

    Args:
        offset: where to begin …
        number: … which so many lines are before.
    """
    with opens() as file:
        file.seek(offset)
        for line in rested(file):
            number += 1
            if line.strip():
                yield number, offset, line
            offset += len(line)


def read(
    opens: Opens, after: tuple[int, int], done: bytearray
) -> tuple[list[Line], tuple[int, int]]:
    """The next lines that are not done, and after which offset and number the others are. There
    are no more when nothing is returned.

    Args:
        done: by number, whether a line is.
    """
    found: list[Line] = []
    size = 0
    for number, offset, raw in raw_lines(opens, *after):
        if not done[number]:
            found.append(_line(number, offset, raw))
            size += len(raw)
        after = offset + len(raw), number
        if size >= BLOCK_BYTES:
            break
    return found, after


def read_one(opens: Opens, number: int, offset: int) -> Line:
    """A line whose place is known."""
    with opens() as file:
        file.seek(offset)
        return _line(number, offset, file.readline())


def line_id(batch: str, number: int) -> str:
    """What a line is called where its answer is."""
    return f"batch_req_{batch.removeprefix('batch_')}{number:06x}"


def number_of(id: str) -> int:
    return int(id[-6:], 16)


def _line(number: int, offset: int, raw: bytes) -> Line:
    found = _decode(raw)
    return Line(number, offset, str(found.custom_id), bytes(found.body))

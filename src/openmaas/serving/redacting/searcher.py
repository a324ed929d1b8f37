"""The process that searches long texts, confined: ``python -m openmaas.serving.redacting.searcher``

It reads questions from standard input and writes answers to standard output, each as its length
(uint32, little-endian) and msgpack. What it was asked is in its memory alone, and goes with it.
"""

from __future__ import annotations

import struct
import sys
from typing import BinaryIO

import msgspec

from openmaas.errors import InvalidRequest
from openmaas.redaction.entity import Entity
from openmaas.redaction.finder import Finder, finder
from openmaas.redaction.policy import RedactionPolicy

LENGTH = struct.Struct("<I")


class Question(msgspec.Struct, frozen=True, array_like=True):
    texts: list[str]
    more: list[list[Entity]]  # that are known, of each text
    policy: RedactionPolicy | None = None  # None: as before


class Found(msgspec.Struct, frozen=True, array_like=True):
    entities: list[list[Entity]]  # of each text
    error: str | None = None  # why they cannot be found


def main() -> None:
    """Answers until standard input ends."""
    find: Finder | None = None
    while (raw := _read(sys.stdin.buffer)) is not None:
        question = msgspec.msgpack.decode(raw, type=Question)
        try:
            if question.policy is not None:
                find = finder(question.policy)
            assert find is not None, "the first question has a policy"
            pairs = zip(question.texts, question.more, strict=True)
            found = Found([find.find(text, more) for text, more in pairs])
        except InvalidRequest as error:
            found = Found([], error.message)
        answer = msgspec.msgpack.encode(found)
        sys.stdout.buffer.write(LENGTH.pack(len(answer)) + answer)
        sys.stdout.buffer.flush()


def _read(stream: BinaryIO) -> bytes | None:
    head = stream.read(LENGTH.size)
    return stream.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else None


if __name__ == "__main__":
    main()

"""Frames between gateway and worker: msgpack over a stream socket, length first.

A frame is a list, so that all tokens of an engine step, all rows of a batch and all
requests of one turn of the gateway's event loop travel together.
"""

from __future__ import annotations

import struct

import msgspec

from openmaas.inference import Event, ModelInfo, Record, Request

MAX_FRAME_BYTES = 512 * 1024 * 1024
_LENGTH = struct.Struct("<I")
HEADER_BYTES = _LENGTH.size


class Submit(Record):
    """Gateway → worker: run this; ``seconds`` is what is left until its deadline."""

    id: int
    request: Request
    seconds: float


class Cancel(Record):
    """Gateway → worker: nobody waits for this any more. Answered by Cancelled, once the
    request holds no place in the engine; a final event may have crossed it on the way."""

    id: int


class Ready(Record):
    """Worker → gateway, first frame: the model is loaded and has answered its own probe."""

    info: ModelInfo


class Refused(Record):
    """Worker → gateway, first frame instead of Ready: loading failed."""

    code: str
    message: str


class Emit(Record):
    """Worker → gateway: what happened to request ``id``."""

    id: int
    event: Event


class Cancelled(Record):
    """Worker → gateway: request ``id`` is out of the queue or the engine."""

    id: int


class Beat(Record):
    """Worker → gateway, every second: it lives; ``busy`` is how long its engine's present step
    has lasted, in seconds, 0 between steps."""

    busy: float


ToWorker = list[Submit | Cancel]
ToGateway = list[Ready | Refused | Emit | Cancelled | Beat]

_encoder = msgspec.msgpack.Encoder()
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_gateway = msgspec.msgpack.Decoder(ToGateway).decode


def encode(frame: ToWorker | ToGateway) -> bytes:
    """The frame's bytes with its length in front."""
    body = _encoder.encode(frame)
    return _LENGTH.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Bytes that follow a header.

    Raises:
        ValueError: the length is beyond ``MAX_FRAME_BYTES``.
    """
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    return int(length)

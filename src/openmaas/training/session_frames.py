"""What crosses the socket between a session's process and the gateway: msgpack, length first.

The process runs calls one after the other, in the order of their ids, and answers in that order.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from openmaas.inference import Record, Tensor, TensorSpec

MAX_FRAME_BYTES = 512 * 1024 * 1024
_LENGTH = struct.Struct("<I")
HEADER_BYTES = _LENGTH.size


# --- calls ---------------------------------------------------------------------------------


class Batch(Record):
    """Rows to work on: ``inputs`` with their ``targets``, or ``rows`` of the data set by number.

    Tensors' first dimension is the row. ``weights`` are of each row's loss.
    """

    inputs: Sequence[Tensor] = ()  # by name, or in order where no name is given
    targets: Tensor | None = None
    weights: Tensor | None = None
    rows: list[int] | None = None

    @property
    def empty(self) -> bool:
        return not self.inputs and (self.targets, self.weights, self.rows) == (None, None, None)


class Forward(Record):
    """Outputs and the loss of each row, as in use: without dropout."""

    batch: Batch
    outputs: bool = True


class ForwardBackward(Record):
    """Adds the gradients of a batch to those that wait for the next step, as in training."""

    batch: Batch
    per_example: bool = False
    # of a private session: which of its samples and noises it takes; no two calls take the same
    draw: int | None = None

    @property
    def draws(self) -> bool:
        """Whether nothing is said of what it learns from."""
        return self.batch.empty and not self.per_example


class OptimStep(Record):
    """Applies the gradients and zeroes them."""

    learning_rate: float | None = None  # None: the optimizer's own
    clip_norm: float | None = None  # of all gradients together


class Predict(Record):
    batch: Batch


class Gradients(Record):
    """Those that wait for the next step."""

    names: Sequence[str] = ()  # of weights; empty: all


class Weights(Record):
    names: Sequence[str] = ()


class Save(Record):
    """Writes a checkpoint. ``sequence`` is the number of the call that will come next."""

    name: str
    sequence: int = 1


class Load(Record):
    name: str


class Export(Record):
    """Writes what a version is made of into the session's folder."""


class Spoiled(Record):
    """A call that could not be read: it fails in its turn, and those sent with it too."""

    message: str
    param: str | None = None


Call = (
    Forward | ForwardBackward | OptimStep | Predict | Gradients | Weights | Save | Load | Export
    | Spoiled
)  # fmt: skip


class Ask(Record):
    """Gateway → process: run this.

    ``known`` is the id up to which whoever asks knows the answers: if a call after it has failed,
    this one was sent in the belief that it would not, and is refused.
    """

    id: int
    call: Call
    known: int
    step: int | None = None  # at which the session must be


class Cancel(Record):
    """Gateway → process: nobody waits for it. If it has not begun, it fails."""

    id: int


# --- answers -------------------------------------------------------------------------------


class Opened(Record):
    """Process → gateway, first frame: the network is built, its last checkpoint loaded."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    parameters: int  # trainable numbers
    weights: list[TensorSpec]  # names as ``Weights`` takes them
    libraries: dict[str, str]
    step: int = 0
    sequence: int = 1  # of the call that comes next
    # of a private session: what each of its steps is
    rate: float | None = None
    noise_multiplier: float | None = None


class Refused(Record):
    """Process → gateway, first frame instead of Opened."""

    code: str
    message: str
    param: str | None = None


class Answer(Record):
    """Process → gateway: a call's result."""

    id: int
    step: int  # optimizer steps so far
    values: dict[str, Any] = msgspec.field(default_factory=dict)
    tensors: Sequence[Tensor] = ()


class Failure(Record):
    """Process → gateway: a call's error."""

    id: int
    step: int
    code: str
    message: str
    param: str | None = None


ToProcess = list[Ask | Cancel]
FromProcess = list[Opened | Refused | Answer | Failure]

_encoder = msgspec.msgpack.Encoder()
decode_to_process = msgspec.msgpack.Decoder(ToProcess).decode
decode_from_process = msgspec.msgpack.Decoder(FromProcess).decode


def encode(frame: ToProcess | FromProcess) -> bytes:
    """The frame's bytes with its length in front."""
    body = _encoder.encode(frame)
    return _LENGTH.pack(len(body)) + body


def body_length(header: bytes | bytearray) -> int:
    """Bytes that follow a header.

    Raises:
        ValueError: the length is beyond ``MAX_FRAME_BYTES``.
    """
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    return int(length)

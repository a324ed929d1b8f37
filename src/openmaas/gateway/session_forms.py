"""What a session's calls look like in JSON: bodies to calls, answers to JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from openmaas.errors import InvalidRequest
from openmaas.gateway import tensors
from openmaas.inference import Tensor
from openmaas.training import session_frames as frames
from openmaas.training.session_frames import Answer, Batch, Call
from openmaas.training.session_live import Order

Number = Annotated[int, Meta(ge=1, le=1 << 53)]
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Encoding = Literal["numbers", "base64"]
Names = Annotated[list[Annotated[str, Meta(max_length=400)]], Meta(max_length=4096)]
CheckpointName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Given = Raw | UnsetType  # JSON that is read later
MOST_CALLS = 128  # of one request


class TensorBody(Struct, forbid_unknown_fields=True):
    """An array: ``data`` is flat numbers, or base64 of its little-endian bytes."""

    datatype: str
    shape: list[int]
    data: Raw


class _Body(Struct, forbid_unknown_fields=True, kw_only=True, tag_field="call"):
    """Where a call stands: see ``Order``."""

    sequence: Number | None = None
    acknowledged: Count | None = None
    expected_step: Count | None = None

    @property
    def order(self) -> Order:
        return Order(self.sequence, self.acknowledged, self.expected_step)

    def made(self) -> Call:
        raise NotImplementedError


class _Rows(_Body, kw_only=True):
    """``inputs``: an array (or nested numbers), or one for each input by name; or ``rows``."""

    inputs: Given = UNSET
    rows: Annotated[list[Count], Meta(max_length=65_536)] | None = None

    def batch(self, targets: Given = UNSET, weights: Given = UNSET) -> Batch:
        given = _json_of(self.inputs)
        if (self.rows is None) == (not given):
            raise InvalidRequest("say either inputs or rows", param="inputs")
        if self.rows is not None and _json_of(targets):
            raise InvalidRequest("rows have targets of their own", param="targets")
        return Batch(
            inputs=[] if self.rows is not None else _inputs(given),
            targets=_optional("targets", targets),
            weights=_optional("weights", weights),
            rows=self.rows,
        )


class _Learning(_Rows, kw_only=True):
    targets: Given = UNSET
    weights: Given = UNSET  # of each row's loss


class ForwardBody(_Learning, tag="forward", kw_only=True):
    outputs: bool = True
    encoding: Encoding = "numbers"

    def made(self) -> Call:
        return frames.Forward(batch=self.batch(self.targets, self.weights), outputs=self.outputs)


class ForwardBackwardBody(_Learning, tag="forward_backward", kw_only=True):
    per_example: bool = False

    def made(self) -> Call:
        drawn = self.rows is None and UNSET is self.inputs is self.targets is self.weights
        # Of a private session the server draws the rows; any other says that some are missing.
        batch = Batch() if drawn else self.batch(self.targets, self.weights)
        return frames.ForwardBackward(batch=batch, per_example=self.per_example)


class OptimStepBody(_Body, tag="optim_step", kw_only=True):
    learning_rate: Annotated[float, Meta(gt=0, le=100)] | None = None  # None: the optimizer's own
    clip_norm: Annotated[float, Meta(gt=0, le=1e6)] | None = None  # of all gradients together

    def made(self) -> Call:
        return frames.OptimStep(learning_rate=self.learning_rate, clip_norm=self.clip_norm)


class RowsBody(_Rows, tag="predict", kw_only=True):
    encoding: Encoding = "numbers"

    def made(self) -> Call:
        return frames.Predict(batch=self.batch())


class WeightsBody(_Body, tag="weights", kw_only=True):
    names: Names = []
    encoding: Encoding = "numbers"

    def made(self) -> Call:
        return frames.Weights(names=self.names)


class GradientsBody(_Body, tag="gradients", kw_only=True):
    names: Names = []
    encoding: Encoding = "numbers"

    def made(self) -> Call:
        return frames.Gradients(names=self.names)


class SaveBody(_Body, tag="save_checkpoint", kw_only=True):
    name: CheckpointName = "last"

    def made(self) -> Call:
        if self.name == "auto":
            raise InvalidRequest("the service itself writes 'auto'", param="name")
        return frames.Save(name=self.name)


class LoadBody(_Body, tag="load_checkpoint", kw_only=True):
    name: CheckpointName = "last"

    def made(self) -> Call:
        return frames.Load(name=self.name)


CallBody = (
    ForwardBody | ForwardBackwardBody | OptimStepBody | RowsBody | WeightsBody | GradientsBody
    | SaveBody | LoadBody
)  # fmt: skip


class CallsBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Several calls, made one after the other; the first has number ``sequence``."""

    calls: Annotated[list[CallBody], Meta(min_length=1, max_length=MOST_CALLS)]
    sequence: Number | None = None
    acknowledged: Count | None = None


# --- answers -------------------------------------------------------------------------------


class TensorAnswer(Struct):
    name: str
    datatype: str
    shape: list[int]
    data: Any  # flat numbers, or base64


class Done(Struct, kw_only=True, omit_defaults=True):
    step: int  # optimizer steps so far
    resumed_from_step: int | None = None  # the session was idle, or lost what came after


class Forwarded(Done, kw_only=True):
    loss: float
    per_example: list[float]
    outputs: TensorAnswer | None = None


class Learned(Done, kw_only=True):
    loss: float
    gradient_norms: dict[str, float | None]  # of each layer; null: too large for a number
    rows: float  # whose gradients wait for the next step
    per_example: list[float] | None = None


class Stepped(Done, kw_only=True):
    gradient_norm: float | None  # of all together, before clipping


class Predicted(Done, kw_only=True):
    outputs: TensorAnswer


class Arrays(Done, kw_only=True):
    data: list[TensorAnswer]


class Saved(Done, kw_only=True):
    name: str
    names: list[str]  # of all checkpoints


class Loaded(Done, kw_only=True):
    name: str


def answer(body: CallBody, found: Answer, resumed: int | None) -> Done:
    """A call's answer as JSON.

    Raises:
        InvalidRequest: an output has no JSON form.
    """
    encoding: Encoding = getattr(body, "encoding", "numbers")
    told = [_tensor(one, encoding) for one in found.tensors]
    about: dict[str, Any] = {"step": found.step, "resumed_from_step": resumed}
    values = found.values
    if isinstance(body, ForwardBody):
        return Forwarded(
            **about,
            loss=values["loss"],
            per_example=values["per_example"],
            outputs=told[0] if told else None,
        )
    if isinstance(body, ForwardBackwardBody):
        return Learned(
            **about,
            loss=values["loss"],
            gradient_norms=values["gradient_norms"],
            rows=values["rows"],
            per_example=values.get("per_example"),
        )
    if isinstance(body, OptimStepBody):
        return Stepped(**about, gradient_norm=values["gradient_norm"])
    if isinstance(body, RowsBody):
        return Predicted(**about, outputs=told[0])
    if isinstance(body, SaveBody):
        return Saved(**about, name=values["name"], names=values["names"])
    if isinstance(body, LoadBody):
        return Loaded(**about, name=values["name"])
    return Arrays(**about, data=told)


def call(body: CallBody) -> Call:
    """The call of a body. One that cannot be read is a call too: it fails in its turn, so that
    those sent behind it do not run as if it had been made."""
    try:
        return body.made()
    except InvalidRequest as error:
        return frames.Spoiled(message=error.message, param=error.param)


def _tensor(one: Tensor, encoding: Encoding) -> TensorAnswer:
    if encoding == "base64":
        return TensorAnswer(one.name, one.datatype, one.shape, one.data)
    try:
        data = Raw(tensors.to_json(one))
    except InvalidRequest:
        raise InvalidRequest(
            f"{one.name!r} holds NaN or an infinity, which JSON has no numbers for; ask with "
            '"encoding": "base64"',
            param="encoding",
        ) from None
    return TensorAnswer(one.name, one.datatype, one.shape, data)


# --- arrays --------------------------------------------------------------------------------


def _inputs(raw: bytes) -> list[Tensor]:
    if raw.lstrip()[:1] != b"{":
        return [_array("inputs", raw)]
    fields = _json("inputs", raw, dict[str, Raw])
    if "datatype" in fields:
        return [_array("inputs", raw)]
    return [
        msgspec.structs.replace(_array(name, bytes(one)), name=name) for name, one in fields.items()
    ]


def _json_of(given: Given) -> bytes:
    """What was given; nothing where it was left out or null."""
    data = b"" if given is UNSET else bytes(given)
    return b"" if data == b"null" else data


def _optional(name: str, given: Given) -> Tensor | None:
    data = _json_of(given)
    return _array(name, data) if data else None


def _array(name: str, raw: bytes) -> Tensor:
    if raw.lstrip()[:1] == b"{":
        body = _json(name, raw, TensorBody)
        data = bytes(body.data)
        if data[:1] == b'"':
            found = _json(name, data, bytes)
            one = tensors.from_bytes(name, body.datatype, body.shape, found)
        else:
            one = tensors.from_json(name, body.datatype, body.shape, data)
        return msgspec.structs.replace(one, name="")
    level: Any = _json(name, raw, Any)
    if not isinstance(level, list):
        raise InvalidRequest(f"{name} is no array", param=name)
    shape = [len(level)]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(not isinstance(one, list) or len(one) != size for one in level):
            raise InvalidRequest(f"{name}: rows differ in shape", param=name)
        if len(shape) >= tensors.MAX_RANK:
            raise InvalidRequest(f"{name} is nested too deeply", param=name)
        shape.append(size)
        level = [one for row in level for one in row]
    kinds = set(map(type, level))
    if not kinds <= {int, float, bool}:
        raise InvalidRequest(f"{name} holds something that is no number", param=name)
    datatype = "BOOL" if kinds == {bool} else "INT64" if kinds <= {int, bool} else "FP64"
    data = tensors.pack(name, datatype, level)
    return Tensor(name="", datatype=datatype, shape=shape, data=data)


def _json(name: str, raw: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{name}: {error}", param=name) from None

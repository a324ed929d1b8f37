"""The echo runtime's encoder and ordinary network: numbers that depend on the input alone."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from openmaas.errors import InvalidRequest
from openmaas.inference import (
    Answer,
    Embed,
    Embedded,
    Failure,
    ModelInfo,
    Predict,
    Predicted,
    Request,
    Tensor,
    TensorSpec,
    Usage,
)
from openmaas.runtimes import echo_faults
from openmaas.runtimes.echo_options import EchoOptions, note_prompt

_FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}


class _Batch:
    """What both have in common: pace and faults."""

    def __init__(self, options: EchoOptions) -> None:
        self._options = options
        self._count = 0

    def close(self) -> None:
        """There is nothing to free."""

    def _fault(self, text: str) -> str | None:
        """Lets the fault of a request happen; returns the kind of one about numbers or pace."""
        fault = echo_faults.written_in(text)
        if fault is None and self._options.fault and self._count >= self._options.fault_after:
            fault = echo_faults.Fault(self._options.fault)
        self._count += 1
        if fault is None:
            return None
        echo_faults.happen(fault, self._options.oom_mib << 20)
        return fault.kind

    def _pace(self, kinds: Sequence[str | None]) -> None:
        pace = 1.0 if "slow" in kinds else self._options.tokens_per_second
        if pace:
            time.sleep(1 / pace)


class EchoEmbeddings(_Batch):
    """A ``BatchRuntime``: a vector is the text's hash, stretched and brought to unit length.
    A token is a byte."""

    def __init__(self, options: EchoOptions) -> None:
        super().__init__(options)
        self.info = ModelInfo(
            task="embed",
            runtime="echo",
            options=["dimensions"],
            context_tokens=options.context_tokens,
            dimensions=options.dimensions,
        )

    def size(self, request: Request) -> int:
        if not isinstance(request, Embed) or not request.inputs:
            raise InvalidRequest("this model embeds texts", param="input")
        most = self._options.dimensions
        if request.dimensions is not None and not 1 <= request.dimensions <= most:
            raise InvalidRequest(f"dimensions is from 1 to {most}", param="dimensions")
        sizes = _sizes(request)
        if max(sizes) > self._options.context_tokens:
            raise InvalidRequest("an input is longer than the model's context", param="input")
        return sum(sizes)

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        answers: list[Answer | Failure] = []
        kinds = []
        for request in requests:
            assert isinstance(request, Embed)
            texts = [_bytes(text) for text in request.inputs]
            for text in texts:
                note_prompt(self._options, text)
            kinds.append(self._fault(b" ".join(texts).decode(errors="replace")))
            wide = request.dimensions or self._options.dimensions
            vectors = np.stack([self._vector(text, wide) for text in texts])
            if kinds[-1] == "nan":
                vectors[:] = np.nan
            used = Usage(input_tokens=sum(_sizes(request)))
            answers.append(Embedded(dimensions=wide, data=vectors.tobytes(), usage=used))
        self._pace(kinds)
        return answers

    def _vector(self, text: bytes, wide: int) -> np.ndarray:
        stretched = hashlib.shake_256(text).digest(2 * self._options.dimensions)
        vector = np.frombuffer(stretched, "<u2")[:wide].astype("<f4") - 32767.5
        return (vector / np.linalg.norm(vector)).astype("<f4")


class EchoNetwork(_Batch):
    """A ``BatchRuntime``: the outputs are the inputs."""

    def __init__(self, options: EchoOptions) -> None:
        super().__init__(options)
        free = [TensorSpec(name="x", datatype="FP32", shape=[-1, -1])]
        self.info = ModelInfo(task="predict", runtime="echo", inputs=free, outputs=free)

    def size(self, request: Request) -> int:
        if not isinstance(request, Predict) or not request.inputs:
            raise InvalidRequest("this model takes tensors", param="inputs")
        unknown = set(request.outputs) - {tensor.name for tensor in request.inputs}
        if unknown:
            raise InvalidRequest("outputs are the inputs' names here", param="outputs")
        return request.rows

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        answers: list[Answer | Failure] = []
        kinds = []
        for request in requests:
            assert isinstance(request, Predict)
            words = b" ".join(t.data for t in request.inputs if t.datatype == "BYTES")
            note_prompt(self._options, words)
            kinds.append(self._fault(words.decode(errors="replace")))
            wanted = [t for t in request.inputs if not request.outputs or t.name in request.outputs]
            outputs = [_spoiled(t) for t in wanted] if kinds[-1] == "nan" else wanted
            answers.append(Predicted(outputs=outputs, usage=Usage(rows=request.rows)))
        self._pace(kinds)
        return answers


def _bytes(text: str | list[int]) -> bytes:
    if isinstance(text, str):
        return text.encode(errors="replace")
    return np.asarray(text, "<i8").tobytes()


def _sizes(request: Embed) -> list[int]:
    """Tokens of each input: bytes of a text."""
    return [
        len(text) if isinstance(text, list) else len(text.encode(errors="replace"))
        for text in request.inputs
    ]


def _spoiled(tensor: Tensor) -> Tensor:
    kind = _FLOATS.get(tensor.datatype)
    if kind is None:
        return tensor
    count = len(tensor.data) // np.dtype(kind).itemsize
    return msgspec.structs.replace(tensor, data=np.full(count, np.nan, kind).tobytes())

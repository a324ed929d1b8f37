"""Few padded calls of a graph over many texts of different lengths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused

# Most padded tokens of one engine call: from 256 on a token costs the same, memory does not.
CALL_TOKENS = 2048
# One more engine call costs as much as so many tokens of padding: 1.5 ms, which is reading all
# weights, against a tenth of a token's 60 µs, as the graphs built here do nothing with padding
# but in attention. Beyond that, padding is dearer than another call.
CALL_COST = 300
# Lengths of calls are multiples of this, so that fewer shapes need kernels of their own.
LENGTHS = 16

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


class Text(NamedTuple):
    """A text, or a pair of texts, in tokens."""

    ids: list[int]
    second: int = 0  # where the second text of a pair begins, for networks with token types


class PaddedCalls:
    """A compiled graph that answers ``width`` numbers a text or, ``by_token``, a token.

    Raises:
        ArtifactRefused: its inputs or its output are others.
    """

    def __init__(self, compiled: ov.CompiledModel, context: int, *, by_token: bool = False) -> None:
        self._context = context
        self._inputs = [(_known_name(port), _dtype(port)) for port in compiled.inputs]
        names = {name for name, _ in self._inputs}
        if IDS not in names:
            raise ArtifactRefused(f"the encoder does not take {IDS}")
        # Without a mask padding would be read as text: only texts of one length share a call.
        self._masked = MASK in names
        self.width = _width(compiled, by_token)
        self._request = compiled.create_infer_request()

    def close(self) -> None:
        """Frees the engine."""
        del self._request

    def run(self, texts: list[Text]) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Indices of some of the texts and the graph's answer, [texts, width] or [texts, tokens,
        width], which the next call overwrites; until every text had its turn.

        Raises:
            RuntimeError: what OpenVINO raises.
        """
        cut = batches if self._masked else batches_of_equals
        for batch in cut([text.ids for text in texts]):
            longest = max(len(texts[index].ids) for index in batch)
            if self._masked:
                longest = min(-(-longest // LENGTHS) * LENGTHS, self._context)
            shape = (len(batch), longest)
            arrays = {name: np.zeros(shape, dtype) for name, dtype in self._inputs}
            for row, index in enumerate(batch):
                ids, second = texts[index]
                arrays[IDS][row, : len(ids)] = ids
                if self._masked:
                    arrays[MASK][row, : len(ids)] = 1
                if second and TYPES in arrays:
                    arrays[TYPES][row, second : len(ids)] = 1
            self._request.infer(arrays, share_inputs=True, share_outputs=True)
            yield batch, self._request.get_output_tensor(0).data


def batches(texts: list[list[int]]) -> list[list[int]]:
    """Indices of the texts of each engine call, the longest first. The cuts between lengths
    are those of least cost, padded tokens and calls together, by dynamic programming."""
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    lengths = [len(texts[index]) for index in order]
    firsts = [at for at in range(len(order)) if at == 0 or lengths[at] != lengths[at - 1]]
    ends = [*firsts[1:], len(order)] if firsts else []
    costs, cuts = [0], [0]  # of the texts before each end, and where their last call begins
    for end in ends:
        cost, cut = min(
            (cost + CALL_COST + lengths[first] * (end - first), number)
            for number, (cost, first) in enumerate(zip(costs, firsts, strict=False))
        )
        costs.append(cost)
        cuts.append(cut)
    calls: list[list[int]] = []
    number = len(firsts)
    while number:
        first, end = firsts[cuts[number]], ends[number - 1]
        most = max(1, CALL_TOKENS // lengths[first])
        calls += [order[at : min(at + most, end)] for at in range(first, end, most)]
        number = cuts[number]
    return calls[::-1]


def batches_of_equals(texts: list[list[int]]) -> list[list[int]]:
    """As ``batches``, but of texts that are as long as one another."""
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(texts):
        by_length.setdefault(len(ids), []).append(index)
    calls = []
    for length, indices in by_length.items():
        most = max(1, CALL_TOKENS // length)
        calls += [indices[at : at + most] for at in range(0, len(indices), most)]
    return calls


def _known_name(port: Any) -> str:
    for name in (IDS, MASK, TYPES):
        if name in port.get_names():
            return name
    raise ArtifactRefused(f"the encoder takes {sorted(port.get_names())}, which is not known here")


def _dtype(port: Any) -> np.dtype[Any]:
    kinds: dict[str, np.dtype[Any]] = {"i64": np.dtype(np.int64), "i32": np.dtype(np.int32)}
    kind = port.get_element_type().get_type_name()
    if kind not in kinds:
        raise ArtifactRefused(f"the encoder takes tokens as {kind}, not as i64 or i32")
    return kinds[kind]


def _width(compiled: ov.CompiledModel, by_token: bool) -> int:
    shape = compiled.outputs[0].get_partial_shape() if len(compiled.outputs) == 1 else None
    rank = 3 if by_token else 2
    if shape is None or shape.rank.is_dynamic or len(shape) != rank or shape[-1].is_dynamic:
        what = "token" if by_token else "text"
        raise ArtifactRefused(f"the network does not answer one row of a fixed length a {what}")
    return int(shape[-1].get_length())

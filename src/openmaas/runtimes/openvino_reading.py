"""Texts that a language model reads and does not continue: log-probabilities, beginnings once.

OpenVINO GenAI gives a prompt's log-probabilities without alternatives, and none of what its
prefix cache holds, so answers are scored here, on the same artifact's network. Sequences that may
share what they begin with are read as one tree (Miao et al. 2024, SpecInfer, arXiv:2305.09781): a
pass takes the tokens of many branches, each of which sees those on its own way to the root, and
logits are computed of answers alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from openmaas.runtimes.base import SampledToken, Step
from openmaas.runtimes.language_tree import Pass, Sequence, Tree

log = logging.getLogger(__name__)

_HIDDEN = np.float32(-1e9)  # added to the score of a token that is not on the way

Network = Callable[[Pass], NDArray[np.float32]]


class Reader:
    """Reads sequences; each is told of in one step, when all its scored tokens are known.

    Args:
        network: what computes a pass: its logits, ``wanted × vocabulary``.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._tree = Tree()

    def add(self, id: int, prompt: list[int], start: int, alternatives: int, salt: str) -> None:
        """Scores ``prompt[start:]``. Sequences with the same ``salt`` share their beginnings."""
        self._tree.add(Sequence(id, prompt, start, alternatives, salt))

    def cancel(self, id: int) -> None:
        self._tree.remove(id)

    def busy(self) -> bool:
        return bool(self._tree)

    def step(self) -> list[Step]:
        """One pass; the sequences that it ends."""
        chosen = self._tree.next()
        if chosen is None:
            return []
        logits = self._network(chosen)
        for row, (sequence, token) in zip(logits, chosen.wanted, strict=True):
            sequence.scored.append(_scored(row, token, sequence.alternatives))
        return [
            Step(id=one.id, tokens=one.scored, finish="length", cached_tokens=one.shared)
            for one in self._tree.ended()
        ]


def open_reader(folder: Path, settings: dict[str, Any]) -> Reader:
    """A reader of an artifact of format ``openvino-llm``.

    Raises:
        RuntimeError: OpenVINO cannot load it, or its network is not of a form known here.
    """
    return Reader(_Compiled(folder, settings))


class LateReader:
    """A reader that is loaded beside other work, from the first sequence on."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._reader: Reader | None = None
        self._failed = False
        self._early: dict[int, tuple[list[int], int, int, str]] = {}
        self._opening = threading.Thread(target=self._open, args=(folder, settings), daemon=True)

    def add(self, id: int, prompt: list[int], start: int, alternatives: int, salt: str) -> None:
        if not self._opening.ident:
            self._opening.start()
        self._early[id] = prompt, start, alternatives, salt

    def cancel(self, id: int) -> None:
        self._early.pop(id, None)
        if self._reader is not None:
            self._reader.cancel(id)

    def busy(self) -> bool:
        return bool(self._early) or (self._reader is not None and self._reader.busy())

    def step(self, wait: float) -> list[Step]:
        """One pass, once it is loaded; ``wait``: seconds that it may be waited for."""
        if self._early:
            self._opening.join(wait)
        if self._failed:
            lost, self._early = list(self._early), {}
            reason = "its network is not one that can be read with"
            return [Step(id=id, tokens=[], finish=reason, failed=True, invalid=True) for id in lost]
        if self._reader is None:
            return []
        for id, one in self._early.items():
            self._reader.add(id, *one)
        self._early = {}
        return self._reader.step()

    def close(self) -> None:
        if self._opening.is_alive():
            self._opening.join()
        self._early, self._reader = {}, None

    def _open(self, folder: Path, settings: dict[str, Any]) -> None:
        try:
            self._reader = open_reader(folder, settings)
        except (RuntimeError, ValueError):
            log.exception("no log-probabilities of given answers: the network cannot be rewired")
            self._failed = True


class _Compiled:
    """The network without a memory of its own, and with two inputs more: which tokens see which,
    and of which of them logits are wanted."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        core = ov.Core()
        model = core.read_model(folder / "openvino_model.xml")
        self._shapes = _forget(model)
        _look(model)
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self._names = {name for one in model.inputs for name in one.get_names()}
        self._held = [np.zeros((1, heads, 0, size), np.float32) for heads, size in self._shapes]

    def __call__(self, chosen: Pass) -> NDArray[np.float32]:
        past, count = len(chosen.kept), len(chosen.tokens)
        inputs = {
            "input_ids": np.array([chosen.tokens], np.int64),
            "attention_mask": np.ones((1, past + count), np.int64),
            "position_ids": np.array([chosen.positions], np.int64),
            "beam_idx": np.zeros(1, np.int32),
            "sees": np.where(chosen.sees, np.float32(0), _HIDDEN)[None, None],
            "wanted": np.array(chosen.rows, np.int64),
        }
        inputs = {name: value for name, value in inputs.items() if name in self._names}
        for at, held in enumerate(self._held):
            self._held[at] = inputs[f"past.{at}"] = np.ascontiguousarray(held[:, :, chosen.kept])
        self._request.infer(inputs)
        for at, held in enumerate(self._held):
            new = self._request.get_tensor(f"new.{at}").data
            self._held[at] = np.concatenate((held, new), axis=2)
        logits: NDArray[np.float32] = self._request.get_tensor("logits").data[0]
        return logits


def _forget(model: ov.Model) -> list[tuple[int, int]]:
    """Makes inputs and outputs of the keys and values that the network remembers: CPUs' kernel for
    a remembered beginning is made for one token more, and slow for many. Returns heads × size."""
    shapes: list[tuple[int, int]] = []
    parameters, results = [], []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "ReadValue":
            continue
        (chosen,) = [one.get_node() for one in node.output(0).get_target_inputs()
                     if one.get_node().get_type_name() == "Gather"]  # fmt: skip
        users = chosen.output(0).get_target_inputs()
        (joined,) = [one.get_node() for one in users
                     if one.get_node().get_type_name() == "Concat"]  # fmt: skip
        _, heads, _, size = node.get_output_partial_shape(0)
        at = len(shapes)
        shapes.append((heads.get_length(), size.get_length()))
        past = ops.parameter([1, shapes[-1][0], -1, shapes[-1][1]], np.float32, name=f"past.{at}")
        past.output(0).set_names({f"past.{at}"})
        new = ops.result(joined.input_value(1))
        new.output(0).set_names({f"new.{at}"})
        for one in users:
            one.replace_source_output(past.output(0))
        parameters.append(past)
        results.append(new)
    for sink in model.get_sinks():
        model.remove_sink(sink)
    for variable in model.get_variables():
        model.remove_variable(variable)
    model.add_parameters(parameters)
    model.add_results(results)
    return shapes


def _look(model: ov.Model) -> None:
    """Attention by a mask that is given, and logits of the tokens that are wanted."""
    sees = ops.parameter([1, 1, -1, -1], np.float32, name="sees")
    sees.output(0).set_names({"sees"})
    wanted = ops.parameter([-1], np.int64, name="wanted")
    wanted.output(0).set_names({"wanted"})
    kinds = {node: node.get_type_name() for node in model.get_ordered_ops()}
    attention = [node for node, kind in kinds.items() if kind == "ScaledDotProductAttention"]
    if not attention or any(len(node.inputs()) < 4 for node in attention):
        raise RuntimeError("a network without masked attention")
    for node in attention:
        node.input(3).replace_source_output(sees.output(0))
        heads = node.get_input_partial_shape(0)[1].get_length()
        for side in (1, 2):
            _repeat(node.input(side), heads)
    head = model.output("logits").get_node().input_value(0).get_node()
    while head.get_type_name() != "MatMul":
        if not head.inputs():
            raise RuntimeError("no matrix gives the logits")
        head = head.input_value(0).get_node()
    gathered = ops.gather(head.input_value(0), wanted, ops.constant(1, np.int64))
    head.input(0).replace_source_output(gathered.output(0))
    model.add_parameters([sees, wanted])
    model.validate_nodes_and_infer_types()


def _repeat(keys: Any, heads: int) -> None:
    """Keys or values of a group of heads, repeated for each: the form that importers of GGUF give
    it is understood by the kernel with a memory alone."""
    shaped = keys.get_source_output().get_node()
    spread = shaped.input_value(0).get_node()
    if shaped.get_type_name() != "Reshape" or spread.get_type_name() != "Broadcast":
        return
    grouped = spread.input_value(0)  # 1 × groups × 1 × tokens × size
    groups, size = (grouped.get_partial_shape()[at].get_length() for at in (1, 4))
    tiled = ops.tile(grouped, ops.constant(np.array([1, 1, heads // groups, 1, 1], np.int64)))
    flat = ops.constant(np.array([1, heads, -1, size], np.int64))
    keys.replace_source_output(ops.reshape(tiled, flat, special_zero=False).output(0))


def _scored(logits: NDArray[np.float32], token: int, alternatives: int) -> SampledToken:
    peak = logits.max()
    whole = float(peak) + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
    likeliest: list[int] = []
    if alternatives:
        top = np.argpartition(logits, -alternatives)[-alternatives:]
        likeliest = top[np.argsort(-logits[top], kind="stable")].tolist()
    return SampledToken(
        token,
        min(0.0, float(logits[token]) - whole),
        [(one, min(0.0, float(logits[one]) - whole)) for one in likeliest],
    )

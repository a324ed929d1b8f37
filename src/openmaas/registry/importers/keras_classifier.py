"""Keras classifiers of texts: a ``.keras`` with tokenizer.json and config.json beside it.

Keras's networks take token ids, mostly of a fixed length, seldom a mask, and answer probabilities.
The graph that is stored takes ids and mask as every other classifier here, places the tokens as
the network was trained to see them, and answers logits: what the last softmax or sigmoid reads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino
from numpy.typing import NDArray
from tokenizers import Tokenizer

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers import (
    classifier_head,
    encoder_reference,
    keras,
    keras_classifier_graph,
    keras_export,
    network_check,
    text_rows,
)
from openmaas.registry.importers.classifier_head import Meaning
from openmaas.registry.importers.keras_classifier_graph import IDS, MASK, Padding
from openmaas.registry.importers.onnx_classifier import MAX_CONTEXT, context_tokens
from openmaas.registry.importers.sentence_encoder import copy_tokenizer
from openmaas.registry.manifest import Description, Port, Verification
from openmaas.registry.recognise import MAX_TOKENIZER, read_json

TOLERANCE = 1e-4  # of a probability; of a logit, relative to the largest where that is above 1

Floats = NDArray[np.float32]


class _Network(NamedTuple):
    """A Keras network and how it reads texts."""

    model: Any  # Keras's own
    names: list[str]  # of its inputs, in its order
    length: int | None  # tokens that it always reads; None: any number
    padding: Padding
    last: str | None  # Softmax or Sigmoid, where it ends in one
    outputs: int


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: the archive names code or is damaged, or settings and tokenizer do not
            fit the network.
        ConversionFailed: the ``convert`` extra is missing, the network is no classifier of token
            ids, or the graph gives other probabilities than Keras.
    """
    (path,) = source.glob("*.keras")
    copy_tokenizer(source, out)
    config = read_json(source / "config.json")
    padding = _padding(source)
    highest = max(padding.id, _highest(out / "tokenizer.json"))
    model, exported, version = keras.exported(path, say)
    rows = min(_tables(model), default=highest + 1)
    if highest >= rows:
        raise ArtifactRefused(
            f"tokenizer.json has ids up to {highest}, the network {rows} rows for them."
        )
    network = _network(model, exported, padding)
    found = _meaning(config, network)
    context = network.length or context_tokens(config)
    graph = keras_classifier_graph.build(exported, network.length, network.padding)
    inputs = [Port(port.any_name, "INT64", [-1, -1]) for port in graph.inputs]
    openvino.save_model(graph, str(out / "openvino_model.xml"), compress_to_fp16=False)
    say("comparing it with Keras")
    return Description(
        format="openvino-classifier",
        task="classify",
        architecture="keras",
        inputs=inputs,
        outputs=[Port("logits", "FP32", [-1, len(found.labels)])],
        precision="f32",
        context_tokens=context,
        labels=found.labels,
        multi_label=found.multi_label,
        verification=(
            text_rows.compare(out, context, found.multi_label, source / text_rows.ROWS)
            if (source / text_rows.ROWS).is_file()
            else _verify(network, found, out, context)
        ),
        converted_by={"keras": version, "openvino": openvino.__version__},
    )


def _network(model: Any, exported: openvino.Model, padding: Padding) -> _Network:
    names = [port.any_name for port in exported.inputs]
    shapes = [port.get_partial_shape() for port in exported.inputs]
    if len(names) > 1 and sorted(names) != [MASK, IDS]:
        raise ConversionFailed(
            f"The network takes {', '.join(sorted(names))[:200]}; a classifier of texts takes "
            f"token ids, or {IDS} and {MASK}."
        )
    if any(shape.rank.is_dynamic or len(shape) != 2 for shape in shapes):
        raise ConversionFailed("The network does not take a row of token ids a text.")
    lengths = {None if shape[1].is_dynamic else shape[1].get_length() for shape in shapes}
    answer = exported.outputs[0].get_partial_shape() if len(exported.outputs) == 1 else None
    if len(lengths) > 1 or answer is None or len(answer) != 2 or answer[1].is_dynamic:
        raise ConversionFailed("The network does not answer one row of a fixed length a text.")
    length = lengths.pop()
    if length is not None and not 1 <= length <= MAX_CONTEXT:
        raise ArtifactRefused(f"The network reads {length} tokens.")
    return _Network(
        model,
        names,
        length,
        padding,
        keras_classifier_graph.last_activation(exported),
        int(answer[1].get_length()),
    )


def _padding(source: Path) -> Padding:
    """As tokenizer.json pads: by default on the right, with 0, as Keras's layers mask it."""
    said = read_json(source / "tokenizer.json", MAX_TOKENIZER).get("padding") or {}
    said = said if isinstance(said, dict) else {"direction": said}
    id, side = said.get("pad_id", 0), said.get("direction", "Right")
    if type(id) is not int or id < 0 or side not in ("Left", "Right"):
        raise ArtifactRefused("tokenizer.json pads with no sane pad_id and direction.")
    return Padding(id, side == "Left")


def _meaning(config: Any, network: _Network) -> Meaning:
    """A single number is of two labels: how likely the second is."""
    found = classifier_head.meaning(config, max(2, network.outputs))
    sure = isinstance(config, dict) and config.get("problem_type") is not None
    several = network.last == "Sigmoid" and network.outputs > 1
    one = network.last == "Softmax" or network.outputs == 1
    if (sure and several and not found.multi_label) or (one and found.multi_label):
        raise ConversionFailed(
            f"config.json: the problem_type is not that of a network that ends in "
            f"{network.last or 'one number'}."
        )
    return Meaning(labels=found.labels, multi_label=several or found.multi_label, pairs=False)


def _highest(tokenizer: Path) -> int:
    """The highest of a tokenizer's ids."""
    try:
        ids = Tokenizer.from_file(str(tokenizer)).get_vocab(with_added_tokens=True).values()
    except Exception as error:  # the library raises plain Exception on what it cannot read
        raise ArtifactRefused(f"tokenizer.json cannot be read: {str(error)[:200]}") from None
    return int(max(ids, default=0))


def _tables(model: Any) -> list[int]:
    """Rows of the tables in which tokens are looked up; the engine would read beyond them."""
    rows, pending = [], [model]
    while pending:
        layer = pending.pop()
        pending += getattr(layer, "layers", [])
        if type(layer).__name__ == "Embedding":
            rows.append(int(layer.input_dim))
    return rows


def _verify(network: _Network, found: Meaning, out: Path, context: int) -> Verification:
    if keras_export.direct():
        raise ConversionFailed("There is nothing to compare the export with.")
    compiled = network_check.compiled(out / "openvino_model.xml")
    ids, mask, _ = encoder_reference.batches(out / "tokenizer.json", context)[0]
    kept = mask.any(1)
    if not kept.any():
        raise ArtifactRefused("tokenizer.json finds no tokens in English sentences.")
    ids, mask = ids[kept], mask[kept]
    rows = [row[there == 1] for row, there in zip(ids, mask, strict=True)]
    wanted = np.concatenate([_predicted(network, row) for row in rows])
    if len(compiled.inputs) > 1:
        logits = np.asarray(compiled({IDS: ids, MASK: mask})[0])
    else:
        logits = np.concatenate([compiled({IDS: row[None]})[0] for row in rows])
    if network.last is None and (wanted >= 0).all() and (wanted <= 1).all():
        raise ConversionFailed(
            "The network's answers look like probabilities, but it ends in no softmax or sigmoid; "
            "end it in one of them, or in logits."
        )
    if network.outputs == 1:
        first = 1 - wanted if network.last else np.zeros_like(wanted)
        wanted = np.concatenate([first, wanted], axis=1)
    if network.last is not None:
        logits = text_rows.probabilities(logits, found.multi_label)
    scale = 1.0 if network.last else max(1.0, float(np.abs(wanted).max()))
    worst = float(np.abs(logits - wanted).max())
    if not worst <= TOLERANCE * scale:
        raise ConversionFailed(f"The graph's answers differ by {worst:.3g} from Keras's.")
    return Verification(
        against="model.predict of Keras, a text at a time",
        samples=len(rows),
        max_abs_error=worst,
        compared=f"{'probabilities' if network.last else 'logits'} of real sentences",
    )


def _predicted(network: _Network, row: NDArray[np.int64]) -> Floats:
    """What Keras answers to the tokens of one text: [1, outputs]."""
    missing = 0 if network.length is None else network.length - len(row)
    sides = (missing, 0) if network.padding.left else (0, missing)
    given = {
        IDS: np.pad(row, sides, constant_values=network.padding.id)[None],
        MASK: np.pad(np.ones_like(row), sides)[None],
    }
    arrays = [given.get(name, given[IDS]) for name in network.names]
    try:
        found = network.model.predict(arrays if len(arrays) > 1 else arrays[0], verbose=0)
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConversionFailed(
            f"Keras cannot run it on a text of {len(row)} tokens: {lines[0][:200]}"
        ) from None
    return np.asarray(found, np.float32)

"""Networks of a few weights, made on the spot as artifact folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from openmaas.inference import Embed, Predict, Tensor

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(60))]
CONTEXT = 16
DIMENSIONS = 8
LABELS = ["good", "bad", "odd"]
NAMES = {
    "f2": "FP16",
    "f4": "FP32",
    "f8": "FP64",
    "b1": "BOOL",
    **{f"i{size}": f"INT{8 * size}" for size in (1, 2, 4, 8)},
    **{f"u{size}": f"UINT{8 * size}" for size in (1, 2, 4, 8)},
}


def save(folder: Path, inputs: list[Any], outputs: dict[str, Any], **manifest: Any) -> Path:
    """An artifact folder with a graph; inputs are named by their parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    for parameter in inputs:
        parameter.output(0).set_names({parameter.get_friendly_name()})
    for name, node in outputs.items():
        node.output(0).set_names({name})
    model = ov.Model(list(outputs.values()), inputs, "small")
    ov.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def dense_weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((6, 3)).astype(np.float32)
    return weights, rng.standard_normal(3).astype(np.float32)


def dense(folder: Path, batch: int = -1) -> Path:
    """``x`` [batch, 6] → ``score`` = x·w + b [batch, 3] and ``double`` = 2x."""
    weights, bias = dense_weights()
    x = ops.parameter([batch, 6], np.float32, name="x")
    score = ops.add(ops.matmul(x, ops.constant(weights), False, False), ops.constant(bias[None]))
    double = ops.multiply(x, ops.constant(np.float32(2)))
    return save(folder, [x], {"score": score, "double": double})


def network(folder: Path, shape: list[int], make: Callable[[Any], Any], dtype: Any) -> Path:
    """One input ``x`` and one output ``y`` = make(x)."""
    x = ops.parameter(shape, dtype, name="x")
    return save(folder, [x], {"y": make(x)})


def encoder(folder: Path) -> Path:
    """Tokens → mean of their random vectors, with a tokenizer of sixty words."""
    table = np.random.default_rng(0).standard_normal((len(WORDS), DIMENSIONS)).astype(np.float32)
    ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    mask = ops.parameter([-1, -1], np.int64, name="attention_mask")
    there = ops.unsqueeze(ops.convert(mask, "f32"), ops.constant(np.int64([2])))
    axis = ops.constant(np.int64([1]))
    rows = ops.gather(ops.constant(table), ids, ops.constant(np.int64(0)))
    total = ops.reduce_sum(ops.multiply(rows, there), axis)
    mean = ops.divide(total, ops.reduce_sum(there, axis))
    save(
        folder,
        [ids, mask],
        {"embedding": mean},
        context_tokens=CONTEXT,
        dimensions=DIMENSIONS,
        precision="f32",
    )
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def classifier_tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A row of logits for each word, and for each of two token types."""
    rng = np.random.default_rng(1)
    words = rng.standard_normal((len(WORDS), len(LABELS))).astype(np.float32)
    return words, rng.standard_normal((2, len(LABELS))).astype(np.float32)


def without_mask(folder: Path) -> Path:
    """Tokens → mean of the rows of their words, padding's too, were there any."""
    ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    rows = ops.gather(ops.constant(classifier_tables()[0]), ids, ops.constant(np.int64(0)))
    mean = ops.reduce_mean(rows, ops.constant(np.int64([1])))
    save(folder, [ids], {"logits": mean}, context_tokens=CONTEXT, labels=LABELS, precision="f32")
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def classifier(folder: Path, *, pairs: bool = False) -> Path:
    """Tokens → mean of the rows of their words and types; multi-label."""
    words, kinds = classifier_tables()
    names = ("input_ids", "attention_mask", "token_type_ids")
    ids, mask, types = (ops.parameter([-1, -1], np.int64, name=name) for name in names)
    there = ops.unsqueeze(ops.convert(mask, "f32"), ops.constant(np.int64([2])))
    axis, first = ops.constant(np.int64([1])), ops.constant(np.int64(0))
    rows = ops.add(
        ops.gather(ops.constant(words), ids, first), ops.gather(ops.constant(kinds), types, first)
    )
    total = ops.reduce_sum(ops.multiply(rows, there), axis)
    save(
        folder,
        [ids, mask, types],
        {"logits": ops.divide(total, ops.reduce_sum(there, axis))},
        context_tokens=CONTEXT,
        labels=LABELS,
        multi_label=True,
        pairs=pairs,
        precision="f32",
    )
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


TAGS = ["O", "B-ODD", "I-ODD"]


def tagger(folder: Path, *, masked: bool = True) -> Path:
    """A token is told by its word: w1, w3 … begin something odd, w11, w13 … go on with it."""
    table = np.zeros((len(WORDS), len(TAGS)), np.float32)
    for at, word in enumerate(WORDS):
        number = int(word[1:]) if word.startswith("w") else 0
        table[at, 0 if number % 2 == 0 else 1 if number < 10 else 2] = 4
    ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    mask = ops.parameter([-1, -1], np.int64, name="attention_mask")
    rows = ops.gather(ops.constant(table), ids, ops.constant(np.int64(0)))
    there = ops.unsqueeze(ops.convert(mask, "f32"), ops.constant(np.int64([2])))
    logits = ops.multiply(rows, there) if masked else rows
    ports = [ids, mask] if masked else [ids]
    save(folder, ports, {"logits": logits}, context_tokens=CONTEXT, labels=TAGS, precision="f32")
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def tensor(array: NDArray[Any], name: str = "x", datatype: str | None = None) -> Tensor:
    kind = datatype or NAMES[array.dtype.str[1:]]
    return Tensor(name=name, datatype=kind, shape=list(array.shape), data=array.tobytes())


def predict(array: NDArray[Any], *outputs: str) -> Predict:
    return Predict(inputs=[tensor(array)], outputs=list(outputs))


def embed(*inputs: str | list[int], dimensions: int | None = None) -> Embed:
    return Embed(inputs=list(inputs), dimensions=dimensions)

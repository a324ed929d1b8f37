"""A Marian student for CPUs: a Transformer encoder, and a decoder whose layers are recurrent.

Sources: Kim et al. 2019 ("From Research to Production and Back", the SSRU in a decoder),
Bogoychev et al. 2020 (the students that browsers run).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers.marian_file import MarianFile, Tensor

Array = NDArray[np.float32]

MAX_LAYERS, MAX_WIDTH = 64, 4096
EPSILON = 1e-6
# Scales by which Marian rounds what flows between layers to eight bits, and the settings.
_UNUSED = ("_QuantMultA", "special:model.yml")
# What this family is, among all that Marian can be: norms after each part, ReLU, one table of
# words for both languages and the output, recurrent decoder layers.
_MUST_BE = {
    "type": "transformer",
    "transformer-postprocess": "dan",
    "transformer-preprocess": "",
    "transformer-postprocess-emb": "d",
    "transformer-postprocess-top": "",
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": "2",
    "transformer-decoder-autoreg": "rnn",
    "transformer-train-position-embeddings": "false",
    "dec-cell": "ssru",
    "tied-embeddings-all": "true",
}


class Student(msgspec.Struct, frozen=True, kw_only=True):
    """H width, V vocabulary. Layers: name → (Tensor [out, in], bias [out] or None), or of norms
    (scale [H], shift [H])."""

    words: Tensor  # [V, H]
    bias: Array  # [V]
    encoder: list[dict[str, Any]]
    decoder: list[dict[str, Any]]
    heads: int

    @property
    def width(self) -> int:
        return int(self.words.values.shape[1])


def read(path: Path) -> Student:
    """
    Raises:
        ArtifactRefused: the file is damaged.
        ConversionFailed: a model of another family.
    """
    file = MarianFile(path)
    for name, must in _MUST_BE.items():
        if file.settings.get(name) != must:
            raise ConversionFailed(
                f"A Marian model whose {name} is {file.settings.get(name, 'not said')[:40]!r}; "
                f"those read here have {must!r}."
            )
    width, inner = _number(file, "dim-emb"), _number(file, "transformer-dim-ffn")
    if width < 4 or width % 2:
        raise ArtifactRefused("The model's width is odd or too small.")
    words = file("Wemb", file.rows("Wemb"), width)
    heads = _number(file, "transformer-heads")
    if width % heads:
        raise ArtifactRefused("The model's heads do not divide its width.")
    encoder = [
        _attention(file, f"encoder_l{at}_self_", width)
        | _feed(file, f"encoder_l{at}_ffn_", width, inner)
        for at in range(1, 1 + _number(file, "enc-depth", MAX_LAYERS))
    ]
    decoder = [
        _recurrent(file, f"decoder_l{at}_rnn_", width)
        | _attention(file, f"decoder_l{at}_context_", width)
        | _feed(file, f"decoder_l{at}_ffn_", width, inner)
        for at in range(1, 1 + _number(file, "dec-depth", MAX_LAYERS))
    ]
    bias = file("decoder_ff_logit_out_b", 1, len(words.values)).floats().reshape(-1)
    left = sorted(name for name in file.unused() if not name.endswith(_UNUSED))
    if left:
        raise ConversionFailed(f"It has weights that are not known here: {left[0]}.")
    return Student(words=words, bias=bias, encoder=encoder, decoder=decoder, heads=heads)


def positions(count: int, width: int) -> Array:
    """[count, width]: all sines, then all cosines, as Marian computes them."""
    half = width // 2
    rates = np.exp(np.arange(half) * -(math.log(10_000.0) / (half - 1)))
    angles = np.arange(count)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _attention(file: MarianFile, prefix: str, width: int) -> dict[str, Any]:
    layer: dict[str, Any] = {
        name: (file(f"{prefix}W{letter}", width, width), _vector(file, f"{prefix}b{letter}", width))
        for name, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("attended", "o"))
    }
    return layer | {"attention_norm": _norm(file, prefix + "Wo", width)}


def _feed(file: MarianFile, prefix: str, width: int, inner: int) -> dict[str, Any]:
    return {
        "up": (file(prefix + "W1", width, inner), _vector(file, prefix + "b1", inner)),
        "down": (file(prefix + "W2", inner, width), _vector(file, prefix + "b2", width)),
        "output_norm": _norm(file, prefix + "ffn", width),
    }


def _recurrent(file: MarianFile, prefix: str, width: int) -> dict[str, Any]:
    return {
        "new": (file(prefix + "W", width, width), None),
        "forget": (file(prefix + "Wf", width, width), _vector(file, prefix + "bf", width)),
        "cell_norm": _norm(file, prefix + "ffn", width),
    }


def _norm(file: MarianFile, prefix: str, width: int) -> tuple[Array, Array]:
    scale, shift = (_vector(file, f"{prefix}_ln_{one}", width) for one in ("scale", "bias"))
    return scale, shift


def _vector(file: MarianFile, name: str, length: int) -> Array:
    return file(name, 1, length).floats().reshape(-1)


def _number(file: MarianFile, name: str, most: int = MAX_WIDTH) -> int:
    text = file.settings.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 0 < int(text) <= most):
        raise ArtifactRefused(f"The model's settings give no sane {name}.")
    return int(text)

"""A BERT-family encoder as its folder describes it: settings and weights, one naming for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers.safetensors_file import SafetensorsFolder
from openmaas.registry.recognise import read_json

Array = NDArray[np.float32]

MAX_WIDTH, MAX_LAYERS, MAX_VOCABULARY, MAX_POSITIONS = 16_384, 256, 4 << 20, 1 << 17

# Within a layer: our name → the family's own.
_BERT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}
_DISTILBERT = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attended": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "output_norm": "output_layer_norm",
}
_FAMILIES = {
    "bert": ("encoder.layer.", _BERT),
    "roberta": ("encoder.layer.", _BERT),
    "xlm-roberta": ("encoder.layer.", _BERT),
    "distilbert": ("transformer.layer.", _DISTILBERT),
}
_WEIGHTS = ("query", "key", "value", "attended", "up", "down")
_NORMS = ("attention_norm", "output_norm")


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: H hidden width, V vocabulary, P positions, F width of the feed-forward part."""

    family: str
    heads: int
    epsilon: float
    activation: str  # gelu, gelu_tanh or relu
    first_position: int  # roberta's count from the padding id + 1, others' from 0
    words: Array  # [V, H]
    positions: Array  # [P, H]
    types: Array | None  # [T, H]; None: the family has none
    embedding_norm: tuple[Array, Array]
    layers: list[dict[str, tuple[Array, Array]]]  # our name → (weight [out, in], bias [out])
    pooling: str  # mean or cls
    context_tokens: int

    @property
    def width(self) -> int:
        return int(self.words.shape[1])


def read(folder: Path) -> Encoder:
    """
    Raises:
        ArtifactRefused: settings out of bounds, weights missing or of other shapes than they say.
        ConversionFailed: a variant that is not built here.
    """
    config = _Settings(read_json(folder / "config.json"))
    family = str(config.raw.get("model_type"))
    if family not in _FAMILIES:
        raise ConversionFailed(f"Encoders of the family {family[:40]!r} are not built here.")
    if config.raw.get("position_embedding_type", "absolute") != "absolute":
        raise ConversionFailed("Encoders with relative positions are not built here.")
    distil = family == "distilbert"
    width = config.number("dim" if distil else "hidden_size", MAX_WIDTH)
    heads = config.number("n_heads" if distil else "num_attention_heads", MAX_WIDTH)
    inner = config.number("hidden_dim" if distil else "intermediate_size", MAX_WIDTH * 8)
    if width % heads:
        raise ArtifactRefused("config.json: the width is no multiple of the number of heads.")
    weights = Weights(folder)
    rows = config.number("vocab_size", MAX_VOCABULARY)
    places = config.number("max_position_embeddings", MAX_POSITIONS)
    first = int(config.raw.get("pad_token_id", 1)) + 1 if "roberta" in family else 0
    types = 0 if distil else config.number("type_vocab_size", 64)
    pooling, context = _sentence_settings(folder, places - first)
    start, names = _FAMILIES[family]
    shapes = dict.fromkeys(_WEIGHTS, (width, width)) | {
        "up": (inner, width),
        "down": (width, inner),
    }
    layers = [
        {name: weights.pair(f"{start}{at}.{names[name]}", *shapes[name]) for name in _WEIGHTS}
        | {name: weights.pair(f"{start}{at}.{names[name]}", width) for name in _NORMS}
        for at in range(config.number("n_layers" if distil else "num_hidden_layers", MAX_LAYERS))
    ]
    return Encoder(
        family=family,
        heads=heads,
        epsilon=1e-12 if distil else config.fraction("layer_norm_eps", 1e-12),
        activation=_activation(config.raw.get("activation" if distil else "hidden_act", "gelu")),
        first_position=first,
        words=weights.get("embeddings.word_embeddings.weight", rows, width),
        positions=weights.get("embeddings.position_embeddings.weight", places, width),
        types=weights.types(types, width),
        embedding_norm=weights.pair("embeddings.LayerNorm", width),
        layers=layers,
        pooling=pooling,
        context_tokens=context,
    )


class _Settings:
    def __init__(self, raw: Any) -> None:
        if not isinstance(raw, dict):
            raise ArtifactRefused("config.json is no object.")
        self.raw: dict[str, Any] = raw

    def number(self, name: str, most: int) -> int:
        value = self.raw.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ArtifactRefused(f"config.json: {name} must be a number from 1 to {most}.")
        return value

    def fraction(self, name: str, default: float) -> float:
        value = self.raw.get(name, default)
        if not isinstance(value, int | float) or not 0 < value < 1:
            raise ArtifactRefused(f"config.json: {name} must lie between 0 and 1.")
        return float(value)


class Weights:
    """The folder's safetensors, whatever prefix the encoder's have; a leading ``/`` stands for
    what lies beside the encoder, without the prefix."""

    def __init__(self, folder: Path) -> None:
        self._tensors = SafetensorsFolder(folder)
        words = "embeddings.word_embeddings.weight"
        named = (name for name in self._tensors.names() if name.endswith(words))
        self._prefix = next(named, words).removesuffix(words)

    def get(self, name: str, *shape: int) -> Array:
        whole = self._whole(name)
        if self._tensors.shape(whole) != shape:
            raise ArtifactRefused(f"{whole} has other dimensions than config.json says.")
        return self._tensors(whole)

    def rows(self, name: str) -> int:
        """The first dimension of a tensor."""
        return next(iter(self._tensors.shape(self._whole(name))), 0)

    def _whole(self, name: str) -> str:
        return name[1:] if name.startswith("/") else self._prefix + name

    def types(self, count: int, width: int) -> Array | None:
        return self.get("embeddings.token_type_embeddings.weight", count, width) if count else None

    def pair(self, name: str, *shape: int) -> tuple[Array, Array]:
        return self.get(f"{name}.weight", *shape), self.get(f"{name}.bias", shape[0])


def _activation(name: Any) -> str:
    known = {"gelu": "gelu", "relu": "relu"}
    known |= dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), "gelu_tanh")
    if name not in known:
        raise ConversionFailed(f"config.json: the activation {str(name)[:40]!r} is not built here.")
    return known[name]


def _sentence_settings(folder: Path, most: int) -> tuple[str, int]:
    """Pooling and longest input, as sentence-transformers writes them down."""
    pooling, context = "mean", most
    if (folder / "modules.json").is_file():
        for module in read_json(folder / "modules.json"):
            kind = str(module.get("type", "")).rsplit(".", 1)[-1]
            if kind == "Pooling":
                pooling = _pooling(folder, str(module.get("path", "")))
            elif kind not in ("Transformer", "Normalize"):
                raise ConversionFailed(f"Sentence encoders with {kind[:40]} are not built here.")
    if (folder / "sentence_bert_config.json").is_file():
        found = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        if isinstance(found, int) and found > 0:
            context = min(context, found)
    return pooling, context


def _pooling(folder: Path, name: str) -> str:
    if "/" in name or name.startswith("."):
        raise ArtifactRefused("modules.json names a folder elsewhere.")
    settings = read_json(folder / name / "config.json")
    modes = [key for key, on in settings.items() if key.startswith("pooling_mode_") and on is True]
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if len(modes) != 1 or modes[0] not in known:
        raise ConversionFailed("Pooling must be by the mean of all tokens or by the first one.")
    return known[modes[0]]

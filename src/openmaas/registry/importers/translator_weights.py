"""A translation model as its Hugging Face folder describes it: one naming for all families.

Sources: Vaswani et al. 2017 (the Transformer), Junczys-Dowmunt et al. 2018 (Marian), Fan et al.
2020 (M2M100), NLLB Team 2022, Raffel et al. 2020 (T5 and its relative positions).
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers.safetensors_file import SafetensorsFolder
from openmaas.registry.recognise import read_json

Array = NDArray[np.float32]
Linear = tuple[Array, Array | None]  # weight [out, in], bias [out]
Norm = tuple[Array, Array | None]  # scale, shift; no shift: root mean square norm

MAX_WIDTH, MAX_LAYERS, MAX_VOCABULARY, MAX_POSITIONS = 16_384, 128, 1 << 20, 1 << 14
MAX_PLACES = 1 << 24  # numbers of the table of positions, which no weights pay for
MIN_CONTEXT = 4
# In old files: copies of the words' table, positions that are computed here, and a bias that T5
# never adds.
_COPIES = re.compile(
    r"(model\.)?(en|de)coder\.embed_(tokens\.weight|positions\.weights?)|model\.shared\.weight"
    r"|lm_head\.weight|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
)
ACTIVATIONS = {
    "relu": "relu",
    "swish": "swish",
    "silu": "swish",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
}
T5_CONTEXT = 512  # tokens: its positions are relative, so that only training bounds its length
T5_EPSILON = 1e-6

_BART = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attended": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "cross_query": "encoder_attn.q_proj",
    "cross_key": "encoder_attn.k_proj",
    "cross_value": "encoder_attn.v_proj",
    "cross_attended": "encoder_attn.out_proj",
    "cross_norm": "encoder_attn_layer_norm",
    "up": "fc1",
    "down": "fc2",
    "output_norm": "final_layer_norm",
}


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """The encoder or the decoder: H width, V vocabulary, P positions."""

    words: Array  # [V, H]
    positions: Array | None  # [P, H]; None: relative ones
    relative: Array | None  # [buckets, heads], added to attention scores
    layers: list[dict[str, Any]]  # name → Linear or Norm; names are the keys of ``_BART``
    norm: Norm | None  # after the last layer
    heads: int


class Translator(msgspec.Struct, frozen=True, kw_only=True):
    family: str  # marian, m2m_100 or t5
    encoder: Side
    decoder: Side
    head: Linear  # [V, H]
    pre_norm: bool
    activation: str
    word_scale: float  # of word vectors
    output_scale: float  # of the decoder's last vectors
    query_scale: float | None  # None: 1 / √(width of a head)
    max_distance: int  # of relative positions
    epsilon: float
    start_from_zero: bool  # the decoder's first input is no word's vector, but zeros
    start: int  # the decoder's first token
    end: int
    context_tokens: int


def read(folder: Path) -> Translator:
    """
    Raises:
        ArtifactRefused: settings or weights are damaged or missing.
        ConversionFailed: a variant that is not built here.
    """
    config = read_json(folder / "config.json")
    weights = SafetensorsFolder(folder)
    model: Translator = (_t5 if config.get("model_type") == "t5" else _bart)(config, weights)
    left = sorted(name for name in weights.unused() if not _COPIES.fullmatch(name))
    if left:
        raise ConversionFailed(f"It has weights that are not known here: {left[0][:100]}.")
    return model


def size(config: dict[str, Any], name: str, most: int, default: int | None = None) -> int:
    """A setting that is a whole number from 1 to ``most``.

    Raises:
        ArtifactRefused
    """
    return number(config, name, most, default, least=1)


def number(
    config: dict[str, Any], name: str, most: int, default: int | None = None, *, least: int = 0
) -> int:
    value = config.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise ArtifactRefused(f"config.json: {name} must be a whole number from {least} to {most}.")
    return value


def _bart(config: dict[str, Any], weights: SafetensorsFolder) -> Translator:
    marian = config["model_type"] == "marian"
    width = size(config, "d_model", MAX_WIDTH)
    context = number(config, "max_position_embeddings", MAX_POSITIONS, least=MIN_CONTEXT)
    if context * width > MAX_PLACES:
        raise ArtifactRefused("config.json: max_position_embeddings and d_model are too large.")
    positions = (_marian_positions if marian else _m2m_positions)(context, width)
    vocabulary = size(config, "vocab_size", MAX_VOCABULARY)
    if config.get("normalize_before", not marian) is marian or config.get("normalize_embedding"):
        raise ConversionFailed(f"A {config['model_type']} with norms in unusual places.")

    def side(name: str) -> Side:
        prefix = f"model.{name}."
        words = prefix + "embed_tokens.weight"
        names = {
            own: theirs
            for own, theirs in _BART.items()
            if name == "decoder" or not own.startswith("cross")
        }
        return Side(
            words=_matrix(weights, words if words in weights else "model.shared.weight", width),
            positions=positions,
            relative=None,
            layers=[
                {
                    own: _pair(weights, f"{prefix}layers.{number_}.{theirs}")
                    for own, theirs in names.items()
                }
                for number_ in range(size(config, f"{name}_layers", MAX_LAYERS))
            ],
            norm=None if marian else _pair(weights, prefix + "layer_norm"),
            heads=_heads(config, f"{name}_attention_heads", width),
        )

    encoder, decoder = side("encoder"), side("decoder")
    head = _matrix(weights, "lm_head.weight", width) if "lm_head.weight" in weights else None
    head = decoder.words if head is None else head
    bias = weights("final_logits_bias").reshape(-1) if "final_logits_bias" in weights else None
    if {len(encoder.words), len(decoder.words), len(head)} != {vocabulary}:
        raise ConversionFailed("The model's two languages have vocabularies of different sizes.")
    if bias is not None and len(bias) != vocabulary:
        raise ArtifactRefused("final_logits_bias is not of the vocabulary's size.")
    end = number(config, "eos_token_id", vocabulary - 1)
    if marian and config.get("pad_token_id") == vocabulary - 1:
        # Padding was added to Marian's own vocabulary to start the decoder; it is no answer.
        encoder, decoder = (
            msgspec.structs.replace(one, words=one.words[:-1]) for one in (encoder, decoder)
        )
        head, bias = head[:-1], None if bias is None else bias[:-1]
        if end == vocabulary - 1:
            raise ArtifactRefused("config.json: padding and the end are the same token.")
    return Translator(
        family=config["model_type"],
        encoder=encoder,
        decoder=decoder,
        head=(head, bias if bias is not None and bias.any() else None),
        pre_norm=not marian,
        activation=_activation(config.get("activation_function")),
        word_scale=math.sqrt(width) if config.get("scale_embedding") else 1.0,
        output_scale=1.0,
        query_scale=None,
        max_distance=0,
        epsilon=1e-5,
        start_from_zero=marian,
        start=end if marian else number(config, "decoder_start_token_id", vocabulary - 1),
        end=end,
        context_tokens=context,
    )


def _t5(config: dict[str, Any], weights: SafetensorsFolder) -> Translator:
    width = size(config, "d_model", MAX_WIDTH)
    heads = size(config, "num_heads", MAX_WIDTH)
    if heads * size(config, "d_kv", MAX_WIDTH) != width:
        raise ConversionFailed("A T5 whose heads together are not as wide as the model.")
    feed_forward = str(config.get("feed_forward_proj", "relu"))
    gated = feed_forward.startswith("gated-")
    activation = "gelu_new" if feed_forward == "gated-gelu" else feed_forward.removeprefix("gated-")
    depth = size(config, "num_layers", MAX_LAYERS)

    def side(name: str, depth: int) -> Side:
        blocks = [f"{name}.block.{number_}.layer." for number_ in range(depth)]
        relative = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        return Side(
            words=_matrix(weights, "shared.weight", width),
            positions=None,
            relative=_matrix(weights, relative, heads),
            layers=[_t5_layer(weights, block, name == "decoder", gated) for block in blocks],
            norm=(weights(f"{name}.final_layer_norm.weight"), None),
            heads=heads,
        )

    encoder = side("encoder", depth)
    decoder = side("decoder", size(config, "num_decoder_layers", MAX_LAYERS, depth))
    tied = config.get("tie_word_embeddings", True) is True
    head = encoder.words if tied else _matrix(weights, "lm_head.weight", width)
    return Translator(
        family="t5",
        encoder=encoder,
        decoder=decoder,
        head=(head, None),
        pre_norm=True,
        activation=_activation(activation),
        word_scale=1.0,
        output_scale=width**-0.5 if tied else 1.0,
        query_scale=1.0,
        max_distance=size(config, "relative_attention_max_distance", 1 << 20, 128),
        epsilon=T5_EPSILON,
        start_from_zero=False,
        start=number(config, "decoder_start_token_id", len(head) - 1, 0),
        end=number(config, "eos_token_id", len(head) - 1, 1),
        context_tokens=T5_CONTEXT,
    )


def _t5_layer(weights: SafetensorsFolder, block: str, decoder: bool, gated: bool) -> dict[str, Any]:
    def plain(name: str) -> tuple[Array, None]:
        return weights(f"{block}{name}.weight"), None

    layer: dict[str, Any] = {"attention_norm": plain("0.layer_norm")}
    for own, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("attended", "o")):
        layer[own] = plain(f"0.SelfAttention.{theirs}")
        if decoder:
            layer["cross_" + own] = plain(f"1.EncDecAttention.{theirs}")
    if decoder:
        layer["cross_norm"] = plain("1.layer_norm")
    last = 2 if decoder else 1
    layer["output_norm"] = plain(f"{last}.layer_norm")
    dense = f"{last}.DenseReluDense."
    layer["up"] = plain(dense + ("wi_0" if gated else "wi"))
    if gated:
        layer["gate"] = plain(dense + "wi_1")
    layer["down"] = plain(dense + "wo")
    return layer


def _pair(weights: SafetensorsFolder, name: str) -> tuple[Array, Array]:
    return weights(name + ".weight"), weights(name + ".bias")


def _matrix(weights: SafetensorsFolder, name: str, columns: int) -> Array:
    matrix = weights(name)
    if matrix.ndim != 2 or matrix.shape[1] != columns or len(matrix) > MAX_VOCABULARY:
        raise ArtifactRefused(f"{name} has the shape {list(matrix.shape)}.")
    return matrix


def _heads(config: dict[str, Any], name: str, width: int) -> int:
    heads = size(config, name, MAX_WIDTH)
    if width % (2 * heads):
        raise ArtifactRefused(f"config.json: {name} does not divide the width.")
    return heads


def _activation(name: object) -> str:
    if str(name) not in ACTIVATIONS:
        raise ConversionFailed(f"Its activation {str(name)[:40]!r} is not built here.")
    return ACTIVATIONS[str(name)]


def _marian_positions(count: int, width: int) -> Array:
    """Vaswani et al. 2017, section 3.5, with all sines before all cosines."""
    rates = np.power(10_000.0, -2 * np.arange(width // 2) / width)
    angles = np.arange(count)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _m2m_positions(count: int, width: int) -> Array:
    """As tensor2tensor made them; the first token's place is 2, as padding's is 1."""
    half = width // 2
    rates = np.exp(np.arange(half) * -(math.log(10_000.0) / max(1, half - 1)))
    angles = np.arange(2, count + 2)[:, None] * rates
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    return np.pad(table, ((0, 0), (0, width - 2 * half)))

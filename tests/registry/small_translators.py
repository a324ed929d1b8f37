"""Translation models of a few random weights, as Hugging Face and Marian lay them out."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests.registry import small_models

WIDTH, INNER, HEADS, VOCABULARY, LAYERS = 16, 24, 2, 64, 2
WORDS = [f"\u2581w{number}" for number in range(30)]
Shapes = dict[str, tuple[int, ...]]


def artifact(folder: Path, family: str) -> Path:
    """A whole model (``complete``), imported as the registry does, without its sandbox."""
    return imported(complete(folder / "source", family), folder / "out", family)


def imported(source: Path, out: Path, family: str) -> Path:
    from openmaas.registry.importers import marian_student, translator

    importer = marian_student if family == "student" else translator
    out.mkdir()
    description = importer.convert(source, out, lambda text: None)
    (out / "manifest.json").write_bytes(msgspec.json.encode(description))
    return out


def complete(folder: Path, family: str) -> Path:
    """Weights and tokenizer: marian, marian_many (into several languages), m2m_100, nllb (with a
    ``tokenizer.json``), t5, or student (Marian's own file)."""
    folder.mkdir(parents=True)
    if family == "student":
        return _student(folder)
    if family == "nllb":
        return _nllb(write(folder, "m2m_100"))
    write(folder, "marian" if family == "marian_many" else family)
    if family == "t5":
        (folder / "spiece.model").write_bytes(pieces(["<pad>", "</s>", "<unk>"]))
        return folder
    if family == "m2m_100":
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        names = {"additional_special_tokens": ["__en__", "__fr__", "__de__"]}
        (folder / "special_tokens_map.json").write_text(json.dumps(names))
        (folder / "sentencepiece.bpe.model").write_bytes(pieces(["<unk>", "<s>", "</s>"]))
    else:
        special = ["</s>", "<unk>"] + [">>fra<<", ">>spa<<"] * (family == "marian_many")
        settings = {"source_lang": "en", "target_lang": "pt"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        for side in ("source", "target"):
            (folder / f"{side}.spm").write_bytes(pieces(["</s>", "<unk>"]))
    ids = {text: number for number, text in enumerate([*special, *WORDS])}
    if family != "m2m_100":
        ids["<pad>"] = VOCABULARY - 1
    (folder / "vocab.json").write_text(json.dumps(ids))
    return folder


def write(folder: Path, family: str, **changes: Any) -> Path:
    """``config.json`` and ``model.safetensors`` of a marian, m2m_100 or t5."""
    folder.mkdir(parents=True, exist_ok=True)
    config, shapes = (_t5 if family == "t5" else _bart)(family)
    (folder / "config.json").write_text(json.dumps(config | changes))
    weights = small_models.random_weights(shapes)
    if "final_logits_bias" in weights:
        weights["final_logits_bias"][0, 0] += 2.5  # some answers end before they are cut
    small_models.write_safetensors(folder / "model.safetensors", weights)
    return folder


def pieces(special: list[str]) -> bytes:
    """A SentencePiece model (unigram) of ``special`` and ``WORDS``, as protobuf writes it."""

    def field(number: int, kind: int, value: bytes) -> bytes:
        tag = bytes(_varint(number << 3 | kind))
        return tag + (bytes(_varint(len(value))) if kind == 2 else b"") + value

    out = b""
    for text in [*special, *WORDS]:
        kind = 2 if text == "<unk>" else 3 if text in special else 1
        score = struct.pack("<f", 0.0 if text in special else -float(len(text)))
        one = field(1, 2, text.encode()) + field(2, 5, score) + field(3, 0, bytes([kind]))
        out += field(1, 2, one)
    numbers = {40: "<unk>", 41: "<s>", 42: "</s>", 43: "<pad>"}
    trainer = field(3, 0, b"\1")
    for number, text in numbers.items():
        at = special.index(text) if text in special else -1
        trainer += field(number, 0, bytes(_varint(at & (1 << 64) - 1)))
    return out + field(2, 2, trainer) + field(3, 2, field(1, 2, b"identity"))


def _varint(value: int) -> list[int]:
    out = []
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return [*out, value]


def _nllb(folder: Path) -> Path:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import Metaspace as Decoder
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Metaspace

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = {text: number for number, text in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.decoder = Decoder()
    names = [*special, "eng_Latn", "fra_Latn", "zho_Hans"]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _student(folder: Path) -> Path:
    shapes: Shapes = {"Wemb": (VOCABULARY, WIDTH), "decoder_ff_logit_out_b": (1, VOCABULARY)}
    for side, inside in (("encoder", "self"), ("decoder", "context")):
        for at in range(1, LAYERS + 1):
            layer = f"{side}_l{at}_"
            for one in "qkvo":
                shapes[f"{layer}{inside}_W{one}"] = (WIDTH, WIDTH)
                shapes[f"{layer}{inside}_b{one}"] = (1, WIDTH)
            shapes |= {layer + "ffn_W1": (WIDTH, INNER), layer + "ffn_b1": (1, INNER)}
            shapes |= {layer + "ffn_W2": (INNER, WIDTH), layer + "ffn_b2": (1, WIDTH)}
            norms = [f"{inside}_Wo", "ffn_ffn"]
            if side == "decoder":
                shapes |= {layer + "rnn_W": (WIDTH, WIDTH), layer + "rnn_Wf": (WIDTH, WIDTH)}
                shapes[layer + "rnn_bf"] = (1, WIDTH)
                norms.append("rnn_ffn")
            for norm in norms:
                shapes[f"{layer}{norm}_ln_scale"] = shapes[f"{layer}{norm}_ln_bias"] = (1, WIDTH)
    random = np.random.default_rng(5)
    tensors = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape).astype(np.float32) * 0.3
        tensors[name] = values + 1 if name.endswith("ln_scale") else values
    tensors["decoder_ff_logit_out_b"][0, 0] += 1.0  # some answers end before they are cut
    (folder / "model.enpt.intgemm.alphas.bin").write_bytes(marian_file(tensors))
    (folder / "vocab.enpt.spm").write_bytes(pieces(["</s>", "<unk>"]))
    return folder


SETTINGS = f"""\
dec-cell: ssru
dec-depth: {LAYERS}
dim-emb: {WIDTH}
dim-vocabs:
  - {VOCABULARY}
  - {VOCABULARY}
enc-depth: {LAYERS}
tied-embeddings-all: true
transformer-decoder-autoreg: rnn
transformer-dim-ffn: {INNER}
transformer-ffn-activation: relu
transformer-ffn-depth: 2
transformer-heads: {HEADS}
transformer-postprocess: dan
transformer-postprocess-emb: d
transformer-postprocess-top: ""
transformer-preprocess: ""
transformer-train-position-embeddings: false
type: transformer
"""


def marian_file(tensors: dict[str, NDArray[np.float32]], settings: str = SETTINGS) -> bytes:
    """Marian's binary form; matrices of several rows in eight bits, transposed but for Wemb."""
    headers, names, shapes, data = b"", b"", b"", b""
    entries: list[tuple[str, int, tuple[int, ...], bytes]] = []
    for name, values in tensors.items():
        if values.shape[0] == 1:
            entries.append((name, 0x404, values.shape, values.tobytes()))
            continue
        scale = np.float32(127 / np.abs(values).max())
        turned = values if name == "Wemb" else values.T
        whole = np.rint(turned * scale).astype(np.int8)
        entries.append((name, 0x4101, values.shape, whole.tobytes() + scale.tobytes()))
    text = settings.encode() + b"\0"
    entries.append(("special:model.yml", 0x101, (len(text),), text))
    for name, kind, shape, raw in entries:
        padded = raw + bytes(-len(raw) % 256)
        headers += struct.pack("<4Q", len(name) + 1, kind, len(shape), len(padded))
        names += name.encode() + b"\0"
        shapes += struct.pack(f"<{len(shape)}I", *shape)
        data += padded
    start = struct.pack("<2Q", 1, len(entries)) + headers + names + shapes
    gap = -(len(start) + 8) % 256
    return start + struct.pack("<Q", gap) + bytes(gap) + data


def _bart(family: str) -> tuple[dict[str, Any], Shapes]:
    marian = family == "marian"
    config = {
        "model_type": family,
        "architectures": ["MarianMTModel" if marian else "M2M100ForConditionalGeneration"],
        "d_model": WIDTH,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        "max_position_embeddings": 40,
        "vocab_size": VOCABULARY,
        "activation_function": "swish" if marian else "relu",
        "scale_embedding": True,
        "eos_token_id": 0 if marian else 2,
        "pad_token_id": VOCABULARY - 1 if marian else 1,
        "decoder_start_token_id": VOCABULARY - 1 if marian else 2,
    }
    shapes: Shapes = {"model.shared.weight": (VOCABULARY, WIDTH)}
    if marian:
        shapes["final_logits_bias"] = (1, VOCABULARY)
    for side in ("encoder", "decoder"):
        attentions = ["self_attn"] + ["encoder_attn"] * (side == "decoder")
        for number in range(LAYERS):
            at = f"model.{side}.layers.{number}."
            for attention in attentions:
                for one in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    shapes |= _pair(f"{at}{attention}.{one}", WIDTH, WIDTH)
                shapes |= _norm(f"{at}{attention}_layer_norm")
            shapes |= _pair(at + "fc1", INNER, WIDTH) | _pair(at + "fc2", WIDTH, INNER)
            shapes |= _norm(at + "final_layer_norm")
        if not marian:
            shapes |= _norm(f"model.{side}.layer_norm")
    return config, shapes


def _t5(family: str) -> tuple[dict[str, Any], Shapes]:
    config = {
        "model_type": family,
        "architectures": ["T5ForConditionalGeneration"],
        "d_model": WIDTH,
        "d_kv": WIDTH // HEADS,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "feed_forward_proj": "gated-gelu",
        "relative_attention_max_distance": 16,
        "vocab_size": VOCABULARY,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "task_specific_params": {
            "translation_en_to_de": {"prefix": "translate English to German: "},
            "summarization": {"prefix": "summarize: "},
        },
    }
    shapes: Shapes = {"shared.weight": (VOCABULARY, WIDTH)}
    for side in ("encoder", "decoder"):
        for number in range(LAYERS):
            layers = ["SelfAttention"] + ["EncDecAttention"] * (side == "decoder")
            at = f"{side}.block.{number}.layer."
            for place, attention in enumerate(layers):
                for one in "qkvo":
                    shapes[f"{at}{place}.{attention}.{one}.weight"] = (WIDTH, WIDTH)
                shapes[f"{at}{place}.layer_norm.weight"] = (WIDTH,)
            dense = f"{at}{len(layers)}.DenseReluDense."
            shapes[dense + "wi_0.weight"] = shapes[dense + "wi_1.weight"] = (INNER, WIDTH)
            shapes[dense + "wo.weight"] = (WIDTH, INNER)
            shapes[f"{at}{len(layers)}.layer_norm.weight"] = (WIDTH,)
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shapes[bias] = (8, HEADS)
        shapes[f"{side}.final_layer_norm.weight"] = (WIDTH,)
    return config, shapes


def _pair(name: str, out: int, width: int) -> Shapes:
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def _norm(name: str) -> Shapes:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}

"""Small real models of every format, made from nothing but a seed."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Weights = dict[str, NDArray[np.float32]]


def network(weights: NDArray[np.float32] | None = None) -> onnx.ModelProto:
    """``x`` [batch, 4] → ``y`` = tanh(x·w) [batch, 3]."""
    matrix = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3) if weights is None else weights
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(matrix, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def onnx_file(path: Path) -> Path:
    onnx.save(network(), str(path))
    return path


def openvino_ir(folder: Path) -> Path:
    import openvino

    folder.mkdir(exist_ok=True)
    onnx_file(folder / "small.onnx")
    model = openvino.Core().read_model(str(folder / "small.onnx"))
    (folder / "small.onnx").unlink()
    openvino.save_model(model, str(folder / "small.xml"), compress_to_fp16=False)
    return folder


def write_safetensors(path: Path, weights: Weights) -> None:
    header: dict[str, Any] = {}
    offset = 0
    for name, values in weights.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(values.shape),
            "data_offsets": [offset, offset + values.nbytes],
        }
        offset += values.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for values in weights.values():
            out.write(np.ascontiguousarray(values, dtype="<f4").tobytes())


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 5) -> Weights:
    """Norms around 1, everything else small and normal; the same in every run."""
    random = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape) * 0.2
        is_norm = "norm" in name.lower() and name.endswith("weight")
        found[name] = (values + 1 if is_norm else values).astype(np.float32)
    return found


def special_tokens(texts: Iterable[str], first: int = 0) -> list[dict[str, Any]]:
    """Entries of ``added_tokens``, with ids from ``first`` on."""
    plain = {"normalized": False, "single_word": False, "lstrip": False, "rstrip": False}
    return [
        {"id": at, "content": text, "special": True, **plain}
        for at, text in enumerate(texts, first)
    ]


def word_tokenizer(words: list[str]) -> dict[str, Any]:
    """A WordPiece tokenizer over ``words``, with BERT's special tokens first."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special_tokens(special),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {
                text: {"id": text, "ids": [at], "tokens": [text]}
                for at, text in enumerate(special)
                if text in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {text: at for at, text in enumerate(special + words)},
        },
    }


def byte_tokenizer() -> dict[str, Any]:
    """Byte-level BPE with one merge and two special tokens: 256 bytes, "th", <s>, </s>."""
    alphabet = byte_alphabet()
    vocabulary = {char: at for at, char in enumerate(alphabet)} | {"th": 256}
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": {
            "max_length": 5,
            "strategy": "LongestFirst",
            "stride": 0,
            "direction": "Right",
        },
        "padding": None,
        "added_tokens": special_tokens(("<s>", "</s>"), first=257),
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "fuse_unk": False,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [["t", "h"]],
        },
    }


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [at for at in range(256) if at not in printable]
    stand_ins = {at: chr(at) for at in printable} | {
        at: chr(256 + place) for place, at in enumerate(others)
    }
    return [stand_ins[at] for at in range(256)]


DECODERS: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": False},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True, "head_dim": 32},
}


def decoder_config(family: str) -> dict[str, Any]:
    return {
        "model_type": family,
        "vocab_size": 288,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "bos_token_id": 257,
        "eos_token_id": 258,
        **DECODERS[family],
    }


def decoder_weights(family: str) -> Weights:
    config = decoder_config(family)
    width, inner, rows = 64, 96, 288
    head = config.get("head_dim", 16)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (rows, width),
        "model.norm.weight": (width,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (rows, width)
    for at in range(2):
        layer = f"model.layers.{at}."
        shapes |= {
            f"{layer}input_layernorm.weight": (width,),
            f"{layer}post_attention_layernorm.weight": (width,),
            f"{layer}self_attn.q_proj.weight": (4 * head, width),
            f"{layer}self_attn.k_proj.weight": (2 * head, width),
            f"{layer}self_attn.v_proj.weight": (2 * head, width),
            f"{layer}self_attn.o_proj.weight": (width, 4 * head),
            f"{layer}mlp.gate_proj.weight": (inner, width),
            f"{layer}mlp.up_proj.weight": (inner, width),
            f"{layer}mlp.down_proj.weight": (width, inner),
        }
        if family == "qwen2":
            for part, heads in (("q", 4), ("k", 2), ("v", 2)):
                shapes[f"{layer}self_attn.{part}_proj.bias"] = (heads * head,)
        if family == "qwen3":
            shapes[f"{layer}self_attn.q_norm.weight"] = (head,)
            shapes[f"{layer}self_attn.k_norm.weight"] = (head,)
    return random_weights(shapes)


def decoder_folder(folder: Path, family: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(decoder_config(family)))
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [258], "temperature": 0.6, "top_k": 20})
    )
    (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "{{ 1 }}"}
        )
    )
    write_safetensors(folder / "model.safetensors", decoder_weights(family))
    return folder


ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {"architectures": ["BertModel"], "type_vocab_size": 2, "hidden_act": "gelu"},
    "roberta": {
        "architectures": ["RobertaModel"],
        "type_vocab_size": 1,
        "hidden_act": "gelu_new",
        "pad_token_id": 1,
    },
    "distilbert": {"architectures": ["DistilBertModel"], "activation": "relu"},
}
WORDS = ["a", "man", "is", "eating", "food", ".", "what", "the", "##s", "capital", "of", "france"]
_ROWS, _WIDTH, _INNER, _PLACES = 16, 24, 40, 40


def encoder_config(family: str) -> dict[str, Any]:
    sizes: dict[str, Any] = {"vocab_size": _ROWS, "max_position_embeddings": _PLACES}
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    if family == "distilbert":
        names = ("dim", "hidden_dim", "n_layers", "n_heads")
    sizes |= dict(zip(names, (_WIDTH, _INNER, 2, 4), strict=True))
    return (
        {"model_type": family, "layer_norm_eps": 1e-12, "pad_token_id": 0}
        | sizes
        | ENCODERS[family]
    )


def encoder_weights(family: str) -> Weights:
    distil = family == "distilbert"
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (_ROWS, _WIDTH),
        "embeddings.position_embeddings.weight": (_PLACES, _WIDTH),
        "embeddings.LayerNorm.weight": (_WIDTH,),
        "embeddings.LayerNorm.bias": (_WIDTH,),
    }
    if not distil:
        types = ENCODERS[family]["type_vocab_size"]
        shapes["embeddings.token_type_embeddings.weight"] = (types, _WIDTH)
    square, up, down = (_WIDTH, _WIDTH), (_INNER, _WIDTH), (_WIDTH, _INNER)
    dense: dict[str, tuple[int, ...]]
    if distil:
        dense = dict.fromkeys((f"attention.{part}_lin" for part in ("q", "k", "v", "out")), square)
        dense |= {"ffn.lin1": up, "ffn.lin2": down}
        norms = ("sa_layer_norm", "output_layer_norm")
    else:
        dense = dict.fromkeys(
            (f"attention.self.{part}" for part in ("query", "key", "value")), square
        )
        dense |= {"attention.output.dense": square, "intermediate.dense": up, "output.dense": down}
        norms = ("attention.output.LayerNorm", "output.LayerNorm")
    start = "transformer.layer." if distil else "encoder.layer."
    for at in range(2):
        for name, shape in dense.items():
            shapes[f"{start}{at}.{name}.weight"] = shape
            shapes[f"{start}{at}.{name}.bias"] = shape[:1]
        for name in norms:
            shapes[f"{start}{at}.{name}.weight"] = shapes[f"{start}{at}.{name}.bias"] = (_WIDTH,)
    return random_weights(shapes)


def encoder_folder(folder: Path, family: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(encoder_config(family)))
    (folder / "tokenizer.json").write_text(json.dumps(word_tokenizer(WORDS)))
    write_safetensors(folder / "model.safetensors", encoder_weights(family))
    return folder


CLASSIFIERS = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
}
_HEADS = {
    "bert": ("bert.pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "classifier"),
}


def classifier_weights(family: str, labels: int) -> Weights:
    first, last = _HEADS[family]
    shapes: dict[str, tuple[int, ...]] = {
        f"{first}.weight": (_WIDTH, _WIDTH),
        f"{first}.bias": (_WIDTH,),
        f"{last}.weight": (labels, _WIDTH),
        f"{last}.bias": (labels,),
    }
    encoder = {f"{family}.{name}": values for name, values in encoder_weights(family).items()}
    return encoder | {name: 3 * values for name, values in random_weights(shapes, 6).items()}


def classifier_folder(folder: Path, family: str, *labels: str, **settings: Any) -> Path:
    """As transformers saves a …ForSequenceClassification; one label makes a cross-encoder."""
    folder.mkdir()
    config = encoder_config(family) | {"architectures": [CLASSIFIERS[family]]}
    config |= {"id2label": {str(at): label for at, label in enumerate(labels)}} | settings
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(word_tokenizer(WORDS)))
    write_safetensors(folder / "model.safetensors", classifier_weights(family, len(labels)))
    return folder


TAGGERS = {
    "bert": "BertForTokenClassification",
    "roberta": "RobertaForTokenClassification",
    "distilbert": "DistilBertForTokenClassification",
}


def tagger_folder(folder: Path, family: str, *labels: str, **settings: Any) -> Path:
    """As transformers saves a …ForTokenClassification."""
    folder.mkdir()
    config = encoder_config(family) | {"architectures": [TAGGERS[family]]}
    config |= {"id2label": {str(at): label for at, label in enumerate(labels)}} | settings
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(word_tokenizer(WORDS)))
    shapes: dict[str, tuple[int, ...]] = {
        "classifier.weight": (len(labels), _WIDTH),
        "classifier.bias": (len(labels),),
    }
    encoder = {f"{family}.{name}": values for name, values in encoder_weights(family).items()}
    weights = encoder | {name: 3 * values for name, values in random_weights(shapes, 6).items()}
    write_safetensors(folder / "model.safetensors", weights)
    return folder


def token_head(folder: Path, *labels: str, rank: int = 2) -> Weights:
    """Lays a head for tokens on the sentence encoder of a folder, with an addition to one of its
    weights."""
    shapes: dict[str, tuple[int, ...]] = {
        "head.0.weight": (len(labels), _WIDTH),
        "head.0.bias": (len(labels),),
        "adapter.1.up.down": (rank, _WIDTH),
        "adapter.1.up.up": (_INNER, rank),
    }
    weights = {name: 5 * values for name, values in random_weights(shapes, 8).items()}
    write_safetensors(folder / "head.safetensors", weights)
    (folder / "head.json").write_text(json.dumps({"task": "tag", "labels": list(labels)}))
    return weights


def head(folder: Path, *labels: str, **settings: Any) -> Weights:
    """Lays a head of two layers, 24 → 6 → labels, on the sentence encoder of a folder."""
    shapes: dict[str, tuple[int, ...]] = {
        "head.0.weight": (6, _WIDTH),
        "head.0.bias": (6,),
        "head.1.weight": (len(labels), 6),
        "head.1.bias": (len(labels),),
    }
    weights = {name: 5 * values for name, values in random_weights(shapes, 8).items()}
    write_safetensors(folder / "head.safetensors", weights)
    (folder / "head.json").write_text(json.dumps({"labels": list(labels)} | settings))
    return weights

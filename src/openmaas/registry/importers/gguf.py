"""GGUF → OpenVINO IR where OpenVINO GenAI reads it; otherwise kept as it is, for llama.cpp."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.gguf import Header, read_header
from openmaas.registry.importers import bpe_tokenizer, decoder_ir, language_check
from openmaas.registry.importers.decoder_reference import Shape
from openmaas.registry.importers.gguf_weights import UNPACK, GgufWeights
from openmaas.registry.manifest import Description, Verification

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # that OpenVINO GenAI reads

_ARRAYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type")
_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# Control tokens that end a turn in every model that has them, as llama.cpp takes them too.
_ENDINGS = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"}
_CONTROL = 3

MAX_TEMPLATE = 64 << 10


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: the header is damaged.
        ConversionFailed: it is no language model, or the IR computes other numbers.
    """
    header = read_header(source, _ARRAYS)
    tokens = header.metadata.get(_ARRAYS[0])
    if not tokens or header.number(f"{header.architecture}.context_length") is None:
        raise ConversionFailed("This GGUF is no language model with a tokenizer of its own.")
    template = header.text("tokenizer.chat_template")
    if template is not None and len(template) <= MAX_TEMPLATE:
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    tokenizer = bpe_tokenizer.build(header.metadata)
    if tokenizer is not None:
        (out / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    obstacle = _obstacle(header, tokenizer is not None)
    if obstacle is None:
        verification, versions = _to_ir(source, header, out, say)
        return _description(header, "openvino-llm", verification, versions)
    say(f"keeping the GGUF as it is, for llama.cpp: {obstacle}")
    shutil.move(source, out / "model.gguf")
    return _description(header, "gguf", None, {})


def _obstacle(header: Header, tokenizer: bool) -> str | None:
    """Why OpenVINO GenAI would not serve this model rightly, or None."""
    if header.architecture not in ARCHITECTURES:
        return f"OpenVINO GenAI does not read {header.architecture[:40]}"
    if not tokenizer:
        return "its tokenizer is of a kind that is not known here"
    if not _plain_positions(header):
        return "it stretches its positions, which OpenVINO GenAI would leave out"
    others = {tensor.type for tensor in header.tensors} - set(UNPACK)
    return f"it has {', '.join(sorted(others))} weights" if others else None


def _to_ir(
    source: Path, header: Header, out: Path, say: Callable[[str], None]
) -> tuple[Verification, dict[str, str]]:
    """
    Raises:
        ConversionFailed: the two tokenizers differ, or the IR says something else.
    """
    import openvino_genai

    place = source.parent / "genai"
    place.mkdir()
    say("comparing tokenizers")
    tokenizer = openvino_genai.Tokenizer(str(source), enable_save_ov_model=True)
    language_check.compare_tokenizers(out / "tokenizer.json", tokenizer)
    for name in decoder_ir.TOKENIZER_FILES:
        source.with_name(name).rename(out / name)
    weights = GgufWeights(source, header)
    model = decoder_ir.Model(header.metadata, _shape(header), weights, weights)
    return decoder_ir.build(place, out, model, "the GGUF's weights in NumPy, float32", say)


def _shape(header: Header) -> Shape:
    """
    Raises:
        ArtifactRefused: a number is missing or out of bounds.
    """

    def number(key: str, default: int | None = None) -> int:
        value = header.metadata.get(f"{header.architecture}.{key}", default)
        if not isinstance(value, int) or not 1 <= value <= 1 << 20:
            raise ArtifactRefused(f"The GGUF gives no sane {header.architecture}.{key}.")
        return value

    def fraction(key: str, default: float | None = None) -> float:
        value = header.metadata.get(f"{header.architecture}.{key}", default)
        if not isinstance(value, int | float) or not 0 < value <= 1e12:
            raise ArtifactRefused(f"The GGUF gives no sane {header.architecture}.{key}.")
        return float(value)

    heads = number("attention.head_count")
    return Shape(
        layers=number("block_count"),
        heads=heads,
        key_heads=number("attention.head_count_kv", heads),
        head_width=number("attention.key_length", number("embedding_length") // heads),
        epsilon=fraction("attention.layer_norm_rms_epsilon"),
        rope_base=fraction("rope.freq_base", 10_000.0),
        interleaved=header.architecture == "llama",
    )


def _plain_positions(header: Header) -> bool:
    """Whether positions are rotated without scaling, which GenAI's reader would leave out."""
    scaling = header.text(f"{header.architecture}.rope.scaling.type")
    stretched = any(tensor.name.startswith("rope_f") for tensor in header.tensors)
    return scaling in (None, "none") and not stretched


def _description(
    header: Header,
    form: Literal["openvino-llm", "gguf"],
    verification: Verification | None,
    versions: dict[str, str],
) -> Description:
    metadata = header.metadata
    tokens: list[str] = metadata[_ARRAYS[0]]
    kinds = metadata.get(_ARRAYS[2]) or []
    ids = {name: header.number(f"tokenizer.ggml.{key}_token_id") for name, key in _NAMED.items()}
    special = {
        f"{name}_token": tokens[at]
        for name, at in ids.items()
        if at is not None and at < len(tokens)
    }
    endings = {header.number(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")} | {
        at for at, kind in enumerate(kinds) if kind == _CONTROL and tokens[at] in _ENDINGS
    }
    return Description(
        format=form,
        task="chat",
        architecture=header.architecture[:64],
        context_tokens=header.number(f"{header.architecture}.context_length") or 0,
        special_tokens=special,
        eos_token_ids=sorted(at for at in endings if at is not None and at < len(tokens)),
        add_bos_token=metadata.get("tokenizer.ggml.add_bos_token") is True,
        generation=_generation(header),
        verification=verification,
        converted_by=versions,
    )


def _generation(header: Header) -> dict[str, float]:
    names = {"temp": "temperature", "top_p": "top_p", "top_k": "top_k"}
    found = {name: header.metadata.get(f"general.sampling.{key}") for key, name in names.items()}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}

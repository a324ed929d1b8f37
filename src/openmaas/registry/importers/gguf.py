"""GGUF → OpenVINO IR where OpenVINO GenAI reads it; otherwise kept as it is, for llama.cpp."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openmaas.errors import ConversionFailed
from openmaas.registry.gguf import Header, read_header
from openmaas.registry.importers import bpe_tokenizer, language_check
from openmaas.registry.manifest import Description, Verification

# What OpenVINO GenAI's reader of GGUF takes; of tensor types those that it reads exactly.
ARCHITECTURES = ("llama", "qwen2", "qwen3")
TENSORS = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K"}

_ARRAYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type")
_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# Control tokens that end a turn in every model that has them, as llama.cpp takes them too.
_ENDINGS = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"}
_CONTROL = 3

MAX_TEMPLATE = 64 << 10
IR_FILES = [
    f"openvino_{part}.{end}"
    for part in ("model", "tokenizer", "detokenizer")
    for end in ("xml", "bin")
]


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
    readable = header.architecture in ARCHITECTURES and tokenizer is not None
    if readable and {tensor.type for tensor in header.tensors} <= TENSORS:
        say("converting to OpenVINO IR")
        verification, versions = _to_ir(source, out, say)
        return _description(header, "openvino-llm", verification, versions)
    say(f"keeping the GGUF as it is: {header.architecture} is for llama.cpp")
    shutil.move(source, out / "model.gguf")
    return _description(header, "gguf", None, {})


def _to_ir(
    source: Path, out: Path, say: Callable[[str], None]
) -> tuple[Verification, dict[str, str]]:
    import openvino_genai

    # GenAI writes the IR beside the GGUF, where nothing else may lie.
    place = source.parent / "genai"
    place.mkdir()
    model = source.rename(place / "model.gguf")
    openvino_genai.Tokenizer(str(model), enable_save_ov_model=True)
    prompts = language_check.encode(out / "tokenizer.json")
    language_check.compare_tokenizers(out / "tokenizer.json", model)
    say("computing the GGUF's own answers")
    expected = language_check.answers(model, prompts, enable_save_ov_model=True)
    for name in IR_FILES:
        if not (place / name).is_file():
            raise ConversionFailed(f"OpenVINO GenAI wrote no {name}.")
        (place / name).rename(out / name)
    say("comparing the IR with the GGUF")
    verification = language_check.compare(
        expected, language_check.answers(out, prompts), "the GGUF read by OpenVINO GenAI"
    )
    version = openvino_genai.__version__
    return verification, {"openvino-genai": version}


def _description(
    header: Header, form: Any, verification: Verification | None, versions: dict[str, str]
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

"""A language model's folder as optimum-intel exports it: IR, tokenizer and settings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers import language_check
from openmaas.registry.manifest import Description, Verification
from openmaas.registry.recognise import read_json

MODEL_FILES = ("openvino_model.xml", "openvino_model.bin", "tokenizer.json")
TOKENIZER_FILES = tuple(
    f"openvino_{part}.{end}" for part in ("tokenizer", "detokenizer") for end in ("xml", "bin")
)
MAX_TEMPLATE = 64 << 10
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_DEFAULTS = ("temperature", "top_p", "top_k")


def store(
    folder: Path, out: Path, verification: Verification | None = None, **versions: str
) -> Description:
    """Moves the files that serving needs from ``folder`` to ``out``, and describes the model.

    Raises:
        ArtifactRefused: a file is missing or damaged.
        ConversionFailed: OpenVINO cannot run it, or it gives no numbers.
    """
    for name in MODEL_FILES:
        if not (folder / name).is_file():
            raise ArtifactRefused(f"The folder of a language model needs {name}.")
    for name in (*MODEL_FILES, *TOKENIZER_FILES):
        if (folder / name).is_file():
            shutil.move(folder / name, out / name)
    description = describe(folder, out, verification, versions)
    texts = language_check.encode(out / "tokenizer.json")
    answers = language_check.scores(out / "openvino_model.xml", texts)
    if any(not score <= 0 for scores in answers for score in scores):
        raise ConversionFailed("The model gives log-probabilities that are no numbers.")
    return description


def describe(
    folder: Path, out: Path, verification: Verification | None, versions: dict[str, str]
) -> Description:
    """Reads the JSON files of ``folder``; writes ``chat_template.jinja`` to ``out``,
    where ``tokenizer.json`` lies already."""
    config = read_json(folder / "config.json")
    generation = _optional(folder / "generation_config.json")
    tokenizer = _optional(folder / "tokenizer_config.json")
    template = _template(folder, tokenizer)
    if template is not None:
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    special = {name: _text(tokenizer.get(name)) for name in _SPECIAL}
    endings = generation.get("eos_token_id", config.get("eos_token_id"))
    reader = Tokenizer.from_file(str(out / "tokenizer.json"))
    bos = reader.token_to_id(special["bos_token"] or "")
    return Description(
        format="openvino-llm",
        task="chat",
        architecture=str(config.get("model_type", ""))[:64],
        context_tokens=context_tokens(config),
        special_tokens={name: text for name, text in special.items() if text is not None},
        eos_token_ids=_ids(endings, reader, special["eos_token"]),
        add_bos_token=bos is not None and reader.encode("a").ids[:1] == [bos],
        generation={
            name: float(generation[name])
            for name in _DEFAULTS
            if isinstance(generation.get(name), int | float)
        },
        verification=verification,
        converted_by=versions,
    )


def _template(folder: Path, tokenizer: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file() and path.stat().st_size <= MAX_TEMPLATE:
        return path.read_text(encoding="utf-8")
    found = tokenizer.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in found}
        found = named.get("default")
    return found if isinstance(found, str) and len(found) <= MAX_TEMPLATE else None


def _optional(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise ArtifactRefused(f"{path.name} is no object.")
    return found


def _text(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _ids(endings: Any, reader: Tokenizer, eos: str | None) -> list[int]:
    listed = endings if isinstance(endings, list) else [endings]
    named = reader.token_to_id(eos or "")
    ids = {at for at in (*listed, named) if isinstance(at, int) and at >= 0}
    if not ids:
        raise ArtifactRefused("Neither config.json nor tokenizer_config.json names an eos token.")
    return sorted(ids)


def context_tokens(config: dict[str, Any]) -> int:
    """
    Raises:
        ArtifactRefused: config.json gives no sane number of positions.
    """
    context = config.get("max_position_embeddings", 0)
    if not isinstance(context, int) or not 2 <= context <= 1 << 24:
        raise ArtifactRefused("config.json gives no sane max_position_embeddings.")
    return context

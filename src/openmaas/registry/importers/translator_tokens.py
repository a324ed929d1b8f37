"""The tokenizer of a translator's folder, as the files that its runtime reads.

Either ``tokenizer.json``, or SentencePiece models: ``source.spm``, ``target.spm`` where the
languages have two, and ``vocab.json`` (piece → id) where ids are not the SentencePiece model's.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import sentencepiece

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers.translator_weights import Translator
from openmaas.registry.recognise import MAX_TOKENIZER, read_json

_ONE_MODEL = ("sentencepiece.bpe.model", "spiece.model")


class Tokens(msgspec.Struct, frozen=True):
    ids: dict[str, int]  # token → id; empty: of T5's SentencePiece model alone
    special: list[int]  # that are no text


def take(source: Path, out: Path, model: Translator) -> Tokens:
    """Copies the tokenizer's files.

    Raises:
        ArtifactRefused: they are damaged, or have tokens that the model has not.
        ConversionFailed: none that is read here.
    """
    # Marian's tokenizer.json, where there is one, is a converter's and known to be wrong.
    if (source / "tokenizer.json").is_file() and not (source / "source.spm").is_file():
        tokens = _fast(source, out)
    else:
        tokens = _pieces(source, out, model)
    # Marian's padding has a row in its file, but none in the model that is made of it.
    rows = len(model.encoder.words) + (model.family == "marian")
    if not all(0 <= one < rows for one in tokens.ids.values()):
        raise ArtifactRefused(f"The tokenizer has ids beyond the model's {rows} words.")
    return tokens


def _fast(source: Path, out: Path) -> Tokens:
    from tokenizers import Tokenizer

    path = source / "tokenizer.json"
    if path.stat().st_size > MAX_TOKENIZER:
        raise ArtifactRefused("tokenizer.json is too large.")
    try:
        described = json.loads(path.read_bytes())
        # Length and padding are the server's business; the file's own would cut.
        described["truncation"] = described["padding"] = None
        text = json.dumps(described, ensure_ascii=False)
        ids: dict[str, int] = Tokenizer.from_str(text).get_vocab(with_added_tokens=True)
        added = described.get("added_tokens", [])
        special = [int(one["id"]) for one in added if one.get("special")]
    except Exception as error:  # the library raises plain Exception on what it cannot read
        raise ArtifactRefused(f"tokenizer.json cannot be read: {str(error)[:200]}") from None
    (out / "tokenizer.json").write_text(text, encoding="utf-8")
    return Tokens(ids, special)


def _pieces(source: Path, out: Path, model: Translator) -> Tokens:
    ids: dict[str, int] = {}
    if (source / "source.spm").is_file():
        for name in ("source.spm", "target.spm"):
            _copy(source / name, out / name)
    else:
        found = [source / name for name in _ONE_MODEL if (source / name).is_file()]
        if not found:
            raise ConversionFailed(
                "The folder has no tokenizer that is read here: tokenizer.json, source.spm with "
                "target.spm, sentencepiece.bpe.model or spiece.model."
            )
        _copy(found[0], out / "source.spm")
    if (source / "vocab.json").is_file():
        ids = _vocabulary(source / "vocab.json")
        (out / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    elif model.family != "t5":
        raise ConversionFailed("The folder has neither vocab.json nor tokenizer.json.")
    elif pieces_of(out / "source.spm") > len(model.encoder.words):
        raise ArtifactRefused(f"{found[0].name} has more pieces than the model has words.")
    special = [ids[text] for text in ("<s>", "</s>", "<pad>") if text in ids]
    return Tokens(ids, special or [0])


def _vocabulary(path: Path) -> dict[str, int]:
    found: Any = read_json(path)
    if not isinstance(found, dict) or not all(type(one) is int for one in found.values()):
        raise ArtifactRefused("vocab.json is no table of pieces and their ids.")
    if "<unk>" not in found:
        raise ArtifactRefused("vocab.json has no <unk>.")
    return found


def _copy(path: Path, to: Path) -> None:
    if not path.is_file() or path.stat().st_size > MAX_TOKENIZER:
        raise ArtifactRefused(f"{path.name} is missing or too large.")
    shutil.copyfile(path, to)
    pieces_of(to)


def pieces_of(path: Path) -> int:
    """How many pieces a SentencePiece model has.

    Raises:
        ArtifactRefused: it is damaged.
    """
    try:
        return int(sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size())
    except (RuntimeError, OSError) as error:
        raise ArtifactRefused(f"{path.name} cannot be read: {str(error)[:200]}") from None

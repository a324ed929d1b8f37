"""A vocabulary in Hugging Face's ``tokenizer.json``: text → ids, and ids → bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from openmaas.errors import ArtifactRefused

_MAX_BYTES = 256 << 20


class Vocabulary:
    """
    Attributes:
        pieces: bytes by token id; empty for special tokens and for ids that stand for nothing.
        raw: the same with the texts of special tokens.

    Raises:
        ArtifactRefused: the file is missing, damaged, or of a kind that is not known here.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise ArtifactRefused(f"the artifact has no usable {path.name}")
        encoded = path.read_bytes()
        try:
            description = json.loads(encoded)
            self._tokenizer = Tokenizer.from_buffer(encoded)
        except Exception as error:  # the library raises nothing narrower
            raise ArtifactRefused(f"{path.name} is damaged: {str(error)[:200]}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        to_bytes = _reading(description)
        added = {token["id"]: token for token in description.get("added_tokens", ())}
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.size = max([size, *(id + 1 for id in added)])
        self.raw: list[bytes] = []
        for id in range(self.size):
            text = self._tokenizer.id_to_token(id)
            known = added.get(id)
            self.raw.append(known["content"].encode() if known else to_bytes(text) if text else b"")
        self.pieces = list(self.raw)
        for id, known in added.items():
            if known.get("special"):
                self.pieces[id] = b""

    def encode(self, text: str) -> list[int]:
        """Special tokens written in the text are recognised; none is added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found


def byte_level(text: str) -> bytes:
    """The bytes of a token in byte-level BPE's alphabet (GPT-2)."""
    try:
        return bytes([_ALPHABET[char] for char in text])
    except KeyError:
        return text.encode()


def sentence_piece(text: str) -> bytes:
    """The bytes of a token of SentencePiece: U+2581 is a space, ``<0xNN>`` a byte."""
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        try:
            return bytes([int(text[3:5], 16)])
        except ValueError:
            return text.encode()
    return text.replace("\u2581", " ").encode()


def _reading(description: dict[str, Any]) -> Callable[[str], bytes]:
    kinds = _kinds(description.get("decoder"))
    if "ByteLevel" in kinds:
        return byte_level
    if kinds & {"ByteFallback", "Metaspace"}:
        return sentence_piece
    raise ArtifactRefused(f"tokenizer.json's decoder is not known here: {sorted(kinds)}")


def _kinds(decoder: Any) -> set[str]:
    if not isinstance(decoder, dict):
        return set()
    parts = decoder.get("decoders", ())
    return {str(decoder.get("type"))}.union(*(_kinds(part) for part in parts))


def _alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the others for
    U+0100 and up, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + at): byte for at, byte in enumerate(others)
    }


_ALPHABET = _alphabet()

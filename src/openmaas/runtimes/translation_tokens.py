"""What the translation runtimes share: their tokenizers, and the languages of a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
from tokenizers import Tokenizer

from openmaas.errors import ArtifactRefused, InvalidRequest, PayloadTooLarge
from openmaas.inference import Tokenize, Tokenized, Usage

TOKENIZER_BYTES = 64 << 20
# A text is refused unread beyond this many characters per token of context, which bounds the
# tokenizer's time: no text of that length fits.
CHARACTERS_PER_TOKEN = 100
LISTED = 20  # languages that a refusal names


class Words(Protocol):
    """A translator's tokenizer, without any special token."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...

    def split(self, text: str) -> list[tuple[int, bytes]]: ...


class Pieces:
    """SentencePiece models: one to read, one to write, whose ids a table may replace."""

    def __init__(self, source: Path, target: Path, table: dict[str, int] | None) -> None:
        self._source = _pieces(source)
        self._target = _pieces(target) if target.exists() else self._source
        self._table = table
        self._unknown = table.get("<unk>", 0) if table is not None else 0
        self._back = None if table is None else {one: piece for piece, one in table.items()}

    def encode(self, text: str) -> list[int]:
        if self._table is None:
            return list(self._source.encode(text, out_type=int))
        pieces = self._source.encode(text, out_type=str)
        return [self._table.get(piece, self._unknown) for piece in pieces]

    def decode(self, ids: list[int]) -> str:
        if self._back is None:
            size = self._target.get_piece_size()  # T5 has more rows than pieces
            return str(self._target.decode([one for one in ids if one < size]))
        pieces = [self._back[one] for one in ids if one in self._back]
        return str(self._target.decode(pieces))

    def split(self, text: str) -> list[tuple[int, bytes]]:
        pieces = self._source.encode(text, return_type="proto").pieces
        if self._table is None:
            return [(one.id, one.surface.encode()) for one in pieces]
        return [(self._table.get(one.piece, self._unknown), one.surface.encode()) for one in pieces]


class Fast:
    """A ``tokenizer.json``.

    Args:
        special: texts get the special tokens that the file puts around them.
    """

    def __init__(self, path: Path, *, special: bool = False) -> None:
        self._special = special
        try:
            self._tokenizer = Tokenizer.from_buffer(_read(path))
        except ArtifactRefused:
            raise
        except Exception as error:  # the library raises plain Exception on what it cannot read
            raise ArtifactRefused(f"{path.name} cannot be read: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=self._special).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def split(self, text: str) -> list[tuple[int, bytes]]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [
            (one, text[start:end].encode())
            for one, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]


def read_words(folder: Path) -> Words:
    """The tokenizer of an artifact: ``tokenizer.json``, or ``source.spm`` with, where they are,
    ``target.spm`` and ``vocab.json``.

    Raises:
        ArtifactRefused: it is damaged or missing.
    """
    if (folder / "tokenizer.json").exists():
        return Fast(folder / "tokenizer.json")
    table = folder / "vocab.json"
    ids = None
    if table.exists():
        try:
            ids = json.loads(_read(table))
        except (ValueError, RecursionError):
            ids = None
        if not isinstance(ids, dict) or not all(type(one) is int for one in ids.values()):
            raise ArtifactRefused("vocab.json is damaged")
    return Pieces(folder / "source.spm", folder / "target.spm", ids)


def check_text(text: str, index: int, context: int) -> None:
    """
    Raises:
        InvalidRequest: there is nothing in it to translate.
        PayloadTooLarge: it cannot fit, and is not worth reading.
    """
    if not text.strip():
        raise InvalidRequest(f"input {index} is empty", param="input")
    longest = context * CHARACTERS_PER_TOKEN
    if len(text) > longest:
        raise PayloadTooLarge(
            f"input {index} has {len(text)} characters; the model reads {context} tokens, "
            f"and texts up to {longest} characters are tried",
            param="input",
        )


def check_length(count: int, index: int, context: int) -> None:
    """
    Raises:
        InvalidRequest: an input of ``count`` tokens does not fit.
    """
    if count > context:
        raise InvalidRequest(
            f"input {index} has {count} tokens, the limit is {context}; translate it sentence "
            "by sentence",
            param="input",
        )


def language(asked: str | None, known: list[str], param: str) -> str | None:
    """The model's code of the language asked for; ``None`` stands for its only one, also where
    the model does not say which that is.

    Raises:
        InvalidRequest: it does not know that one, or knows several and none was named.
    """
    if asked is None and len(known) < 2:
        return known[0] if known else None
    if asked is not None and asked in known:
        return asked
    listed = ", ".join(known[:LISTED]) + (
        f" … ({len(known)} in all)" if len(known) > LISTED else ""
    )
    if asked is None:
        raise InvalidRequest(f"this model needs a {param} language: {listed}", param=param)
    raise InvalidRequest(
        f"this model has no {param} language {asked[:40]!r}; "
        + (f"it has: {listed}" if known else "it does not say its own: leave it out"),
        param=param,
    )


def split(words: Words, request: Tokenize) -> Tokenized:
    """The text's own tokens: those that a translator adds depend on the languages."""
    outputs = [words.split(text) for text in request.inputs]
    return Tokenized(outputs=outputs, usage=Usage(input_tokens=sum(map(len, outputs))))


def _pieces(path: Path) -> Any:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=_read(path))
    except (RuntimeError, ValueError) as error:
        raise ArtifactRefused(f"{path.name} cannot be read: {str(error)[:200]}") from None


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > TOKENIZER_BYTES:
            raise ArtifactRefused(f"{path.name} is over {TOKENIZER_BYTES} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtifactRefused(f"the artifact has no {path.name}") from None

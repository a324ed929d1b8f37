"""The tokenizer that a GGUF holds as lists, written as Hugging Face's ``tokenizer.json``.

Byte-level BPE only, and only with a pre-tokenizer that is known: a wrong split gives other
tokens for the same text, silently. The regular expressions are those of llama.cpp's
``llama-vocab.cpp`` and of the models' own ``tokenizer.json``.
"""

from __future__ import annotations

from typing import Any

_CONTROL, _USER_DEFINED = 3, 4

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _bytes(*, regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": regex,
    }


def _split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": pattern},
                "behavior": "Isolated",
                "invert": False,
            },
            _bytes(regex=False),
        ],
    }


_DIGITS = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, _bytes(regex=True)],
}

# pre-tokenizer's name in the GGUF → (how it splits, whether whole words skip the merges,
# the Unicode form that text is brought to first)
PRE: dict[str, tuple[dict[str, Any], bool, str | None]] = {
    "gpt-2": (_bytes(regex=True), False, None),
    "smollm": (_DIGITS, False, None),
    "llama-bpe": (_split(_LLAMA3), True, None),
    "qwen2": (_split(_QWEN2), False, "NFC"),
}


def build(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """``tokenizer.json`` as an object, or None where this GGUF's kind is not known here."""
    pre = metadata.get("tokenizer.ggml.pre")
    tokens = metadata.get("tokenizer.ggml.tokens")
    merges = metadata.get("tokenizer.ggml.merges")
    kinds = metadata.get("tokenizer.ggml.token_type")
    if metadata.get("tokenizer.ggml.model") != "gpt2" or pre not in PRE:
        return None
    if not tokens or not merges or not kinds or len(kinds) != len(tokens):
        return None
    vocabulary = {text: at for at, text in enumerate(tokens)}
    pairs = [merge.split(" ") for merge in merges]
    if len(vocabulary) != len(tokens) or any(len(pair) != 2 for pair in pairs):
        return None
    how, ignore_merges, form = PRE[pre]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": at,
                "content": tokens[at],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": kind == _CONTROL,
            }
            for at, kind in enumerate(kinds)
            if kind in (_CONTROL, _USER_DEFINED)
        ],
        "normalizer": None if form is None else {"type": form},
        "pre_tokenizer": how,
        "post_processor": None,
        "decoder": _bytes(regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": vocabulary,
            "merges": pairs,
        },
    }

"""Which languages a translator knows, and how it is told them: each family in its own way.

=========  ===============================  ==================================================
marian     ``tokenizer_config.json``        one pair; of several targets, ``>>code<<`` is the
                                            first token of the source
m2m_100    tokens ``__en__``, ``eng_Latn``  before the source, and as the answer's first token
t5         ``task_specific_params``         ``translate English to German:`` before the text
=========  ===============================  ==================================================
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers.translator_tokens import Tokens
from openmaas.registry.recognise import read_json

_MARIAN = re.compile(r">>([A-Za-z]{2,3}(?:[_-][A-Za-z0-9]{2,8})*)<<")
_M2M = re.compile(r"__([a-z]{2,3})__|([a-z]{3}_[A-Z][a-z]{3})")
_T5 = re.compile(r"translation_([a-z]{2,3})_to_([a-z]{2,3})")
_CODE = re.compile(r"[A-Za-z]{2,3}(?:[_-][A-Za-z0-9]{2,8}){0,3}")


class Languages(msgspec.Struct, frozen=True, kw_only=True):
    sources: list[str]
    targets: list[str]
    source_tokens: dict[str, int] = {}
    target_tokens: dict[str, int] = {}
    target_in_source: bool = False  # the target's token comes before the source
    prompts: dict[str, str] = {}  # "en>de" → what comes before the text

    def tokens(self) -> set[int]:
        return {*self.source_tokens.values(), *self.target_tokens.values()}


def read(folder: Path, family: str, tokens: Tokens) -> Languages:
    """
    Raises:
        ArtifactRefused: a settings file is damaged.
        ConversionFailed: a model of many languages does not say them.
    """
    if family == "t5":
        return _t5(folder)
    path = folder / "tokenizer_config.json"
    settings = _object(path)
    if family == "m2m_100":
        return _m2m(folder, settings, tokens)
    named = {
        match[1]: one for text, one in sorted(tokens.ids.items()) if (match := _MARIAN.match(text))
    }
    if named:
        return Languages(
            sources=_said(settings, "source_lang"),
            targets=list(named),
            target_tokens=named,
            target_in_source=True,
        )
    return Languages(sources=_said(settings, "source_lang"), targets=_said(settings, "target_lang"))


def _object(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise ArtifactRefused(f"{path.name} is no object.")
    return found


def _said(settings: dict[str, Any], name: str) -> list[str]:
    code = settings.get(name)
    return [code] if isinstance(code, str) and _CODE.fullmatch(code) else []


def _m2m(folder: Path, settings: dict[str, Any], tokens: Tokens) -> Languages:
    ids = dict(tokens.ids)
    key = "additional_special_tokens"
    listed = settings.get(key) or _object(folder / "special_tokens_map.json").get(key)
    if (folder / "vocab.json").is_file() and not (folder / "tokenizer.json").is_file():
        # M2M100 numbers its languages after its vocabulary, in the order of this list.
        names = [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
        names = [one for one in dict.fromkeys(names) if one not in ids]
        ids |= {name: len(tokens.ids) + at for at, name in enumerate(names)}
    named = {
        match[1] or match[2]: one
        for text, one in sorted(ids.items())
        if (match := _M2M.fullmatch(text))
    }
    if not named:
        raise ConversionFailed("Its tokenizer has no tokens of languages: __en__ or eng_Latn.")
    return Languages(
        sources=list(named), targets=list(named), source_tokens=named, target_tokens=named
    )


def _t5(folder: Path) -> Languages:
    config = read_json(folder / "config.json")
    tasks = config.get("task_specific_params")
    prompts = {}
    for name, task in tasks.items() if isinstance(tasks, dict) else ():
        match = _T5.fullmatch(name)
        prompt = task.get("prefix") if isinstance(task, dict) else None
        if match and isinstance(prompt, str) and len(prompt) <= 200:
            prompts[f"{match[1]}>{match[2]}"] = prompt
    pairs = [pair.split(">") for pair in prompts]
    return Languages(
        sources=sorted({source for source, _ in pairs}),
        targets=sorted({target for _, target in pairs}),
        prompts=prompts,
    )

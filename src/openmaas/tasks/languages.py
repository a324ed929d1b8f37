"""Languages by their codes: which one a text is in, what it is called, which of a model's own
codes means it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import langcodes
from langcodes.tag_parser import LanguageTagError

from openmaas.errors import InvalidRequest

SAMPLE = 5000  # characters that are looked at


def detect(text: str, among: Sequence[str] = ()) -> str:
    """The likeliest language as an ISO 639-1 code (or -3, where it has none), of those given or
    of all that are known. A few words may be told wrong: a short text is best sent with its
    language."""
    code, _ = _detector(tuple(sorted({base(one) for one in among}))).classify(text[:SAMPLE])
    return str(code)


def name_of(code: str) -> str:
    """The English name of a language."""
    return str(langcodes.get(code).display_name())


def base(code: str) -> str:
    """The language alone, in the shortest code that it has: eng_Latn and en-GB are en."""
    return str(langcodes.get(code).language)


def check(code: str, param: str) -> str:
    """
    Raises:
        InvalidRequest: no language has this code.
    """
    try:
        if langcodes.tag_is_valid(code) and "unknown language" not in name_of(code).lower():
            return code
    except LanguageTagError:
        pass
    raise InvalidRequest(
        f"{param}: no language has the code {code[:40]!r}; codes are those of ISO 639, "
        "such as en, pt or zh-Hans",
        param=param,
    )


def own_code(code: str, own: Sequence[str]) -> str | None:
    """Which of a model's own codes means a language: the same code, else the same language."""
    if code in own:
        return code
    asked = langcodes.get(code)
    same = [one for one in own if base(one) == asked.language]
    scripts = [one for one in same if langcodes.get(one).script in (None, asked.script)]
    return next(iter(scripts or same), None)


@functools.lru_cache(maxsize=16)
def _detector(among: tuple[str, ...]) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # takes half a second

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    known = [code for code in among if code in set(identifier.nb_classes)]
    if known:
        identifier.set_languages(known)
    return identifier

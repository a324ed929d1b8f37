"""Codes of languages, and which one a text is in."""

from __future__ import annotations

import pytest

from openmaas.errors import InvalidRequest
from openmaas.tasks.languages import base, check, detect, name_of, own_code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The weather is beautiful today, and we are going to the beach.", "en"),
        ("O tempo está bonito hoje e vamos todos para a praia.", "pt"),
        ("今天天气很好，我们去海边散步。", "zh"),
        ("الطقس جميل اليوم ونحن ذاهبون إلى الشاطئ.", "ar"),
        ("Сегодня прекрасная погода, и мы идём на пляж.", "ru"),
        ("今日はとても天気がいいので、海に行きます。", "ja"),
    ],
)
def test_languages_are_told(text: str, code: str) -> None:
    assert detect(text) == code


def test_only_given_languages_are_told() -> None:
    text = "El tiempo es hermoso hoy"
    assert detect(text, ["eng_Latn", "por_Latn"]) == "pt"
    assert detect("🙂", ["en", "pt"]) in ("en", "pt")


@pytest.mark.parametrize("code", ["en", "pt-BR", "zh-Hans", "eng_Latn", "por", "sr_Cyrl"])
def test_codes_that_are_known(code: str) -> None:
    assert check(code, "target") == code


@pytest.mark.parametrize("code", ["xx", "zz-ZZ", "nonsense", "en-nonsense-nonsense", ""])
def test_codes_that_no_language_has(code: str) -> None:
    with pytest.raises(InvalidRequest, match="target"):
        check(code, "target")


@pytest.mark.parametrize(
    ("code", "own", "found"),
    [
        ("pt-BR", ["en", "pt"], "pt"),
        ("pt", ["eng_Latn", "por_Latn"], "por_Latn"),
        ("zh-Hant", ["zho_Hans", "zho_Hant"], "zho_Hant"),
        ("zho_Hans", ["zho_Hans", "zho_Hant"], "zho_Hans"),
        ("de", ["en", "pt"], None),
    ],
)
def test_a_models_own_code(code: str, own: list[str], found: str | None) -> None:
    assert own_code(code, own) == found


def test_names() -> None:
    assert (name_of("pt"), base("eng_Latn")) == ("Portuguese", "en")

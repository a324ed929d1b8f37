"""What is kept when a translator is careless, on one whose every answer is known."""

from __future__ import annotations

import asyncio

import pytest

from openmaas.inference import ModelInfo, Translate
from openmaas.tasks.translate import KEPT, faithful, score, translate
from tests.tasks.exact_model import ExactModel

INFO = ModelInfo(
    task="translate",
    runtime="exact",
    context_tokens=256,
    source_languages=["en"],
    target_languages=["pt"],
)


def through(model: ExactModel, text: str) -> str:
    async def run() -> str:
        return "".join([piece.text async for piece in translate(model, text, "en", "pt")])

    return asyncio.run(run())


def careless(text: str) -> str:
    """Loses every kept span and changes digits, as small models do; the rest in capitals."""
    return KEPT.sub("", text).translate({ord("1"): "7"}).upper()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Read https://a.b/c now.", "READ https://a.b/c NOW."),
        ("Dear {name}, pay %(sum)d.", "DEAR {name}, PAY %(sum)d."),
        ("The <b>bold</b> one.", "THE <b>BOLD</b> ONE."),
        ("Write to me@a.org.", "WRITE TO me@a.org."),
        ("It was 11:10 then.", "IT WAS 11:10 THEN."),
        ("Pay {sum} on 11.1.", "PAY {sum} ON 11.1."),
        ("plain words", "PLAIN WORDS"),
    ],
)
def test_a_careless_model_loses_nothing(text: str, expected: str) -> None:
    assert through(ExactModel(INFO, writes=careless), text) == expected


def test_what_stands_between_sentences_stays() -> None:
    text = "\n  One here. Two here.\t\n\n* Three.\r\n\n"
    model = ExactModel(INFO, writes=str.upper)
    assert through(model, text) == text.upper()
    sent = [
        one for request in model.asked if isinstance(request, Translate) for one in request.inputs
    ]
    assert all(one == one.strip() for one in sent)


def test_what_has_no_words_is_not_asked_about() -> None:
    model = ExactModel(INFO, writes=str.upper)
    assert through(model, "42\n🙂\nhttps://a.b\n") == "42\n🙂\nhttps://a.b\n"
    assert model.asked == []


def test_numbers_may_be_written_as_the_language_does() -> None:
    assert faithful("It costs 3.50", "Custa 3,50")
    assert not faithful("It costs 3.50", "Custa 3,55")
    assert not faithful("See {a} and {b}", "Veja {a} e {a}")


def test_the_score_is_the_mean_probability_by_length() -> None:
    async def pieces() -> float | None:
        model = ExactModel(INFO, writes=str.upper)
        return score([piece async for piece in translate(model, "One. Two.\n", "en", "pt")])

    assert asyncio.run(pieces()) == pytest.approx(2.718281828**-0.5)

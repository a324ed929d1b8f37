"""The starters that translate between English and Portuguese, as the catalog has them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from openmaas.errors import InvalidRequest
from openmaas.inference import Translate, Translated
from openmaas.registry.manifest import MANIFEST_NAME, decode
from openmaas.runtimes import openvino_translation
from openmaas.runtimes.greedy import GreedyTexts
from tests.language_folders import artifact

# Sentence → words that any good translation of it has.
KNOWN = {
    "en-pt": {
        "The children are playing in the garden.": {"crianças", "jardim"},
        "I would like a cup of coffee, please.": {"café", "favor"},
        "Where is the train station?": {"onde", "estação"},
        "She did not go to school yesterday because she was ill.": {"não", "escola", "ontem"},
        "The government will publish the new law tomorrow.": {"governo", "lei", "amanhã"},
        "My brother bought twelve red apples.": {"irmão", "maçãs", "vermelhas"},
        "Education is a right of all citizens.": {"educação", "direito", "cidadãos"},
    },
    "pt-en": {
        "As crianças estão brincando no jardim.": {"children", "playing", "garden"},
        "Eu gostaria de uma xícara de café, por favor.": {"cup", "coffee", "please"},
        "Onde fica a estação de trem?": {"where", "train", "station"},
        "Ela não foi à escola ontem porque estava doente.": {"school", "yesterday", "because"},
        "O governo publicará a nova lei amanhã.": {"government", "law", "tomorrow"},
        "Meu irmão comprou doze maçãs vermelhas.": {"brother", "twelve", "red", "apples"},
        "A educação é um direito de todos os cidadãos.": {"education", "right", "citizens"},
    },
}
STRANGE = [
    *(
        "😀",
        "Hello 😀, how are you?",
        "👩‍👩‍👧‍👦 🇵🇹",
        "你好，世界。",
        "مرحبا بالعالم",
        "שלום 123",
        "\u202eabc\u202c",
    ),
    *(
        "a\u0301e\u0301",
        "Ω ∑ ∞ §",
        "\ufffd",
        "\U0010ffff",
        "</s> <unk> ▁▁",
        "aaaa" * 60,
        "…",
        "\u00ad.",
    ),
]


@pytest.fixture(scope="module", params=list(KNOWN))
def pair(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def starter(pair: str, starters: Path) -> Iterator[GreedyTexts]:
    folder = artifact(starters, pair)
    manifest = decode((folder / MANIFEST_NAME).read_bytes())
    assert manifest.licence == "MPL-2.0"
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 1
    runtime = openvino_translation.open(folder, {})
    yield runtime
    runtime.close()


def translated(starter: GreedyTexts, *texts: str) -> Translated:
    (answer,) = starter.run([Translate(inputs=list(texts))])
    assert isinstance(answer, Translated)
    return answer


def test_known_sentences(starter: GreedyTexts, pair: str) -> None:
    source, target = pair.split("-")
    info = starter.info
    assert (info.source_languages, info.target_languages) == ([source], [target])
    answer = translated(starter, *KNOWN[pair])
    for (sentence, words), output in zip(KNOWN[pair].items(), answer.outputs, strict=True):
        found = {word.strip(".,?!").lower() for word in output.split()}
        assert words <= found, (sentence, output)
        assert output[0].isupper()
        assert output[-1] == sentence[-1]
        assert unicodedata.is_normalized("NFC", output)
    assert all(one is not None and one > -0.5 for one in answer.logprobs)


def test_there_and_back_in_the_same_words(starter: GreedyTexts, pair: str) -> None:
    """The two lists are translations of one another: of most sentences the very words return."""
    other = KNOWN["-".join(reversed(pair.split("-")))]
    outputs = translated(starter, *KNOWN[pair]).outputs
    assert sum(one in other for one in outputs) >= 4, outputs


def test_300_sentences_at_once_as_each_alone(starter: GreedyTexts, pair: str) -> None:
    known = list(KNOWN[pair])
    texts = [f"{known[at % len(known)][:-1]} {at}." for at in range(300)]
    together = translated(starter, *texts)
    assert len(together.outputs) == 300
    assert together.usage.output_tokens < 300 * 60
    numbers = [str(at) in output for at, output in enumerate(together.outputs)]
    assert sum(numbers) > 290
    alone = [translated(starter, text) for text in texts[:30]]
    same = [
        one.outputs == [output] for one, output in zip(alone, together.outputs[:30], strict=True)
    ]
    assert sum(same) >= 28  # rounding may differ in company, which turns near ties


def test_strange_text_breaks_no_character(starter: GreedyTexts) -> None:
    answer = translated(starter, *STRANGE)
    for text, output in zip(STRANGE, answer.outputs, strict=True):
        assert len(output) < 1000, text
        output.encode()  # no half of a surrogate pair
        assert not any(unicodedata.category(one) in ("Cc", "Cs") for one in output), output
    assert [translated(starter, text).outputs[0] for text in STRANGE[:2]] == answer.outputs[:2]


def test_what_is_too_long_or_nothing_is_refused(starter: GreedyTexts) -> None:
    context = starter.info.context_tokens
    with pytest.raises(InvalidRequest, match=rf"input 1 has \d+ tokens, the limit is {context}"):
        starter.size(Translate(inputs=["ok.", "palavra " * 300]))
    for inputs in ([], [""], ["ok.", "\u2003\n"]):
        with pytest.raises(InvalidRequest, match=r"nothing to translate|is empty"):
            starter.run([Translate(inputs=inputs)])

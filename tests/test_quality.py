"""The pieces of ``make eval-tasks``, exact on examples; the whole takes minutes and the network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from quality import summaries, topics, translations
from quality.tables import Table, held, renewed

ROOT = Path(__file__).parents[1]


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    """The example of Lin (2004), section 3.1: police killed the gunman."""
    wanted = "police killed the gunman"
    assert summaries.rouge_l(wanted, "police kill the gunman") == pytest.approx(3 / 4)
    assert summaries.rouge_l(wanted, "the gunman kill police") == pytest.approx(2 / 4)
    assert summaries.rouge_l(wanted, "The gunman!") == pytest.approx(2 * 2 / (4 + 2))
    assert summaries.rouge_l(wanted, "nothing of it") == 0


def test_descriptions_are_read_as_debian_writes_them() -> None:
    sentences = [f" Sentence {number} says\n something.\n" for number in range(5)]
    entry = f"Package: a\nDescription-md5: 0\nDescription-en: does a thing\n{''.join(sentences)}"
    short = f"Package: b\nDescription-en: does less\n{''.join(sentences[:4])}  * a line of a list\n"
    found = summaries.descriptions(f"{entry}\n{short}\nPackage: c\nDescription-en: it\n It.\n")
    assert [synopsis for _, synopsis in found] == ["does a thing"]
    assert found[0][0].startswith("Sentence 0 says something. Sentence 1")


def test_the_bilingual_sentences_are_whole_and_licensed() -> None:
    pairs = translations.pairs()
    assert len(pairs) == len(set(pairs)) == 200
    assert all(8 <= len(english.split()) <= 35 and english != other for english, other in pairs)
    licence = (translations.PAIRS.parent / "README.md").read_text()
    assert "Attribution-ShareAlike 3.0" in licence
    assert "handbook.en-pt.tsv" in (ROOT / "THIRD_PARTY.md").read_text()
    whole = [english for english, _ in pairs]
    assert translations.scores(whole, whole) == ["100.0", "100.0"]


def test_a_figure_says_whether_it_is_what_is_wanted() -> None:
    assert held(0.97, topics.HEAD) == "97.0 (meets 96.0)"
    assert held(0.95, topics.HEAD) == "95.0 (**misses** 96.0)"
    table = Table("T", "What.", ["a", "b"], [["1", "2"]]).markdown()
    assert table == "## T\n\nWhat.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_sections_of_a_page_are_renewed() -> None:
    one, other = (Table(name, "What.", ["a"], [["1"]]) for name in ("One", "Other"))
    page = renewed("# Page\n\nBy a command.\n", [one, other])
    assert page == f"# Page\n\nBy a command.\n\n{one.markdown()}\n{other.markdown()}"
    changed = one._replace(rows=[["2"]])
    assert renewed(page, [changed]) == page.replace(one.markdown(), changed.markdown())


@pytest.mark.parametrize(
    ("page", "command", "titles"),
    [
        (
            "quality.md",
            "make eval-tasks",
            [
                "Sentiment, three classes",
                "Topics, five classes",
                "Summaries",
                "Translation",
                "Entities",
            ],
        ),
        (
            "training-quality.md",
            "make eval-training",
            [
                "Tables and images",
                "Topics, five classes",
                "Sentiment, three classes",
                "Translation from German to English",
                "Summaries of one line",
            ],
        ),
        (
            "private-training-quality.md",
            "make eval-private-training",
            ["Accuracy", "Whether a row was there"],
        ),
    ],
)
def test_a_page_has_every_evaluation(page: str, command: str, titles: list[str]) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == titles
    assert command in text

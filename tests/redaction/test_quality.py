"""Quality on the sentences by hand and on a few generated ones, and that the page tells of it.

``make eval-privacy`` has the whole: more texts, English too, which needs the network.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from quality.privacy import checked
from quality.privacy.generated import LOCALES, Label, texts
from quality.privacy.scoring import Score, scored, together

from openmaas.redaction.finder import finder
from openmaas.redaction.policy import KINDS, RedactionPolicy

ROOT = Path(__file__).parents[2]
FINDER = finder(RedactionPolicy(action="hide"))


def ours(text: str) -> list[Label]:
    return [Label(one.start, one.end, one.kind) for one in FINDER.find(text)]


def held(scores: dict[str, Score], *, recall: float, precision: float, prose: float) -> None:
    for kind in KINDS:
        score = scores[kind]
        assert score.wanted > 0, kind
        assert score.hit >= (prose if kind in ("person", "address") else recall) * score.wanted, (
            kind
        )
        assert score.right >= precision * score.told, kind


def test_sentences_by_hand() -> None:
    some = checked.texts()
    assert len(some) >= 150
    assert sum(not labels for _, labels in some) >= 60
    held(scored(some, ours), recall=0.98, precision=0.95, prose=0.85)


def test_sentences_without_personal_data_pass() -> None:
    plain = [text for text, labels in checked.texts() if not labels]
    disturbed = [text for text in plain if FINDER.find(text)]
    assert len(disturbed) <= 0.03 * len(plain), disturbed


def test_generated_texts_that_need_no_network() -> None:
    scores = [scored(texts(one, 1)[0], ours) for one in LOCALES if not one.startswith("en")]
    held(together(scores), recall=0.98, precision=0.97, prose=0.85)


def test_a_finder_that_finds_nothing_or_everything_is_seen() -> None:
    some = checked.texts()
    nothing = scored(some, lambda _: [])
    everything = scored(some, lambda text: [Label(0, len(text), "person")])
    assert nothing["person"].recall == 0
    assert everything["person"].recall == 1
    assert (everything["person"].precision or 0) < 0.2


@pytest.mark.parametrize("word", ["make eval-privacy", "Presidio", "checked.txt"])
def test_the_page_tells_of_it(word: str) -> None:
    page = (ROOT / "docs" / "privacy-quality.md").read_text()
    assert word in page
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [
        "Recall",
        "Precision",
        "Presidio's recall",
        "Presidio's precision",
        "Names that no list has",
        "Sentences labelled by hand",
        "Cost",
    ]

"""The token classifier that ships is the one that its card describes, and it works."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openmaas.inference import Tag, Tagged
from openmaas.registry.catalog import SHIPPED, Catalog
from openmaas.registry.manifest import MANIFEST_NAME, decode
from openmaas.registry.sources import digest_of_folder
from openmaas.runtimes import openvino_tagger
from openmaas.runtimes.openvino_tagger import OpenVinoTagger
from tests.language_folders import artifact

FOLDER = SHIPPED.parent / "starter"
LABELLED = Path(__file__).parents[2] / "models/entities/labelled.txt"


@pytest.fixture(scope="module")
def starter(starters: Path) -> Iterator[OpenVinoTagger]:
    """As the catalog has it: the encoder is fetched, what was trained is shipped."""
    folder = artifact(starters, "entities")
    manifest = decode((folder / MANIFEST_NAME).read_bytes())
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 1e-3
    runtime = openvino_tagger.open(folder, {})
    yield runtime
    runtime.close()


def told(starter: OpenVinoTagger, *texts: str) -> list[list[tuple[str, str]]]:
    (answer,) = starter.run([Tag(inputs=[*texts])])
    assert isinstance(answer, Tagged)
    return [
        [(text[span.start : span.end], span.label) for span in spans]
        for text, spans in zip(texts, answer.outputs, strict=True)
    ]


def test_the_catalog_names_the_shipped_head_and_minilm() -> None:
    catalog = Catalog.read()
    entry, encoder = catalog.entry("entities"), catalog.entry("minilm-l6-v2")
    assert entry.head is not None
    size, sha256 = digest_of_folder(SHIPPED.parent / entry.head)
    assert sha256 == entry.head_sha256
    assert size < 600_000
    assert (entry.source, entry.sha256, entry.size) == (
        encoder.source,
        encoder.sha256,
        encoder.size,
    )


def test_it_knows_people_and_addresses_from_words(starter: OpenVinoTagger) -> None:
    assert starter.info.labels[:3] == ["O", "B-PERSON", "I-PERSON"]
    assert dict(zip(CLEAR, told(starter, *CLEAR), strict=True)) == CLEAR


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["Zoë Brontë", "Łukasz Żak", "Nguyễn Thị Ánh", "Søren Ærø"])
def test_spans_hold_whole_characters(starter: OpenVinoTagger, name: str, form: Any) -> None:
    """Each letter with its marks, after and before characters of several code units."""
    name = unicodedata.normalize(form, name)
    (spans,) = told(
        starter, f"My name is {name}. 🙂👩🏽\u200d🚀 It rains. My name is {name}, he said."
    )
    assert spans.count((name, "PERSON")) == 2


def test_the_card_gives_data_licence_and_figures() -> None:
    card = (FOLDER / "entities.md").read_text()
    for said in ("Faker", "BBC News", "Apache-2.0", "Known failures", "256 tokens"):
        assert said in card
    rows = re.findall(r"^\| (PERSON|ADDRESS) \| \d+ \| ([\d.]+) \| \d+ \| ([\d.]+) \|$", card, re.M)
    unseen = rows[:2]
    assert [label for label, _, _ in unseen] == ["PERSON", "ADDRESS"]
    assert all(float(recall) >= 0.85 for _, recall, _ in unseen)


def test_the_card_names_the_shipped_weights() -> None:
    weights = (FOLDER / "entities/head.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in (FOLDER / "entities.md").read_text()
    assert json.loads((FOLDER / "entities/head.json").read_text())["task"] == "tag"


def test_people_in_the_news_are_found(starter: OpenVinoTagger) -> None:
    """Sentences of documents that were held out, labelled by hand."""
    lines = LABELLED.read_text().split("# news\n")[1].split("# letters")[0].strip().splitlines()
    assert len(lines) >= 60
    texts = [re.sub(r"\{[A-Z]+ ([^}]+)\}", r"\1", line) for line in lines]
    wanted = [set(re.findall(r"\{PERSON ([^}]+)\}", line)) for line in lines]
    people = [
        {text for text, label in spans if label == "PERSON"} for spans in told(starter, *texts)
    ]
    there = sum(map(len, wanted))
    found = sum(len(mine & those) for mine, those in zip(wanted, people, strict=True))
    assert found / there >= 0.8
    assert found / sum(map(len, people)) >= 0.75


CLEAR = {
    "My name is Emily Watson.": [("Emily Watson", "PERSON")],
    "Dear Mr Okonkwo, thank you for your letter.": [("Okonkwo", "PERSON")],
    "Thomas Müller and Anna-Lena Vogt met in Paris.": [
        ("Thomas Müller", "PERSON"),
        ("Anna-Lena Vogt", "PERSON"),
    ],
    "Please send it to 14 Marlborough Road, Sheffield S10 1DA.": [
        ("14 Marlborough Road, Sheffield S10 1DA", "ADDRESS")
    ],
    "The bill will rise in May, may it be so.": [],
    "Windows and Linux run on most computers in Europe.": [],
    "Turn left after 20 miles and follow the signs to Leeds.": [],
}

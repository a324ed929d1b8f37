"""Names in scripts with capitals: runs of capitalised words, and what speaks for each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from openmaas.redaction.detectors.not_names import (
    GROUP_WORDS,
    NEVER,
    PLACE_BEGINS,
    RARELY,
    TITLES,
)
from openmaas.redaction.detectors.words import CAPITAL
from openmaas.redaction.entity import NAMED, Entity
from openmaas.redaction.gazetteer import Gazetteer

_LETTER = r"[^\W\d_]"
_WORD = rf"{CAPITAL}(?:{_LETTER}|['-](?={_LETTER}))*"
_SMALL = (
    r"(?:van de|van den|van der|van 't|von der|von|van|vom|zu|zur|zum|de la|de las|de los|del"
    r"|della|di|da|do|dos|das|du|des|de|le|la|den|der|ter|ten|te|y|e|i|bin|ibn|bint|al|el|af|av)"
)
_TITLE = (
    r"(?:Mr|Mrs|Ms|Mx|Dr|Prof|Rev|Capt|Sgt|Lt|Col|Sr|Sra|Srta|Dra|Sig|Dott|Avv|Ing|Dhr|Mevr|Drs"
    r"|St|Hr|Fr|Mag|Dipl|M|Mme|Mlle)\."
)
# A few words in a row: more are a headline.
_RUN = re.compile(
    rf"(?<![^\W_])(?<![@/\\#.])(?:{_TITLE} ?|{_WORD}|{CAPITAL}\.)"
    rf"(?:[ ](?:{_SMALL} ){{0,2}}(?:{_TITLE}|{CAPITAL}\.(?:[ -]?{CAPITAL}\.){{0,2}}"
    rf"|{_WORD})){{0,9}}(?![@/\\])"
)
_TOKEN = re.compile(rf"{CAPITAL}\.(?:[ -]?{CAPITAL}\.)*(?!{_LETTER})|{_WORD}\.?")

# Phrases that a name follows: some leave no doubt, others stand before other things too.
_SURE = frozenset(
    "my name is;my full name is;his name is;her name is;their name is;name's;was named;is named"
    ";named"
    ";is called;was called;are called;this is;signed by;signed;sincerely;regards;cheers;name"
    ";names;full name"
    ";first name;last name;surname;patient;attn;attention;contact;contact person;c/o;mr;mrs;ms;mx"
    ";miss;dr;prof"
    ";ich heiße;mein name ist;heißt;heiße;grüßen;grüße;gez;ansprechpartner;ansprechpartnerin"
    ";nachname;vorname"
    ";kunde;kundin;patientin;mitarbeiter;mitarbeiterin;kollege;kollegin;kollegen;herr;herrn;frau"
    ";je m'appelle;m'appelle;s'appelle;mon nom est;cordialement;nom;nom complet;prénom;patiente"
    ";salarié"
    ";salariée;monsieur;madame;mademoiselle;mme;mlle"
    ";me llamo;se llama;mi nombre es;atentamente;saludos;nombre;nombre completo;apellidos"
    ";paciente;empleado"
    ";empleada;señor;señora;señorita;don;doña;sr;sra"
    ";mi chiamo;si chiama;il mio nome è;cordiali saluti;nome;nome e cognome;cognome;paziente"
    ";dipendente;signor"
    ";signora;signorina;dott;dottoressa;avv"
    ";mijn naam is;ik heet;heet;groet;groeten;naam;klant;medewerker;medewerkster;dhr;mevr;mevrouw"
    ";meneer"
    ";nazywam się;nazywa się;mam na imię;pozdrawiam;imię i nazwisko;nazwisko;pacjent;pacjentka"
    ";pracownik"
    ";pan;pani;panem;panią;pana;panu"
    ";meu nome é;chamo-me;me chamo;se chama;atenciosamente;nome completo;sobrenome;funcionário"
    ";funcionária"
    ";senhor;senhora;dona;jag heter;heter;fru;adım;ismim;adı soyadı".split(";")
)
_PERHAPS = frozenset(
    "dear hi hello hey am i'm thanks best from to cc by author with met tell told ask asked for and"
    " bin hallo liebe lieber geehrte geehrter von mit an bei für suis bonjour cher chère avec par"
    " pour chez"
    " soy hola querido querida estimado estimada con por para sono ciao caro cara gentile da ben"
    " beste hoi"
    " met door voor jestem drogi droga szanowny szanowna z dla sou olá oi prezado prezada com är"
    " hej merhaba"
    " client cliente customer klient klientka e y et und i".split()
)
# What may stand before "name", and makes it one of another thing.
_OTHER_NAMES = frozenset(
    "file host user product project domain brand company table column class variable server model"
    " business"
    " display path package module".split()
)
_AFTER = frozenset(
    "who whose said says told tells wrote writes asked asks called calls lives lived works worked"
    " joined emailed"
    " signed explained added replied ordered moved reported thanked was born aged arrived visited"
    " agreed will has"
    " had is sagte schrieb wohnt arbeitet geboren bat hat ist wurde möchte est habite travaille"
    " né née vit"
    " souhaite dijo escribió vive trabaja nació nacido nacida llamó ha lavora abita nato nata"
    " disse scrive woont"
    " werkt heeft zei mieszka pracuje urodzony urodzona powiedział powiedziała napisał napisała"
    " zadzwonił"
    " zadzwoniła mora trabalha nascido nascida ligou escreveu solicitou".split()
)
_NEXT = re.compile(rf"(?:'s|,)?[ ]({_LETTER}+)")
_FORM = re.compile(
    r"(?:Mc|Mac|O'|D'|De[A-Z])[A-Z]?\w+|\w{2,}-[A-Z]\w+|\w+(?:s[ck]i|s[ck]a|wicz|ević|ović|sson"
    r"|sdóttir|escu|enko|ov|ova|ev|eva|ian|yan|dze|shvili|oğlu|ez|ini|elli|etti)"
)
_LOWER = re.compile(
    rf"\b(?:my name is|i am called|ich heiße|je m'appelle|me llamo|mi chiamo)"
    rf" ({_LETTER}{{2,20}}(?: {_LETTER}{{2,20}})?)",
    re.IGNORECASE,
)
_ARTICLES = frozenset(
    "le la de des du van von den der di da della del el al los las les dos".split()
)
_INTRODUCES = re.compile("ame is|called|heiße|appelle|llamo|chiamo")
_MOST_WORDS = 6
_MOST_REPEATED = 50
_LOOK_BACK = 32


class _Word(NamedTuple):
    start: int
    end: int
    text: str  # as lists have it
    is_small: bool  # small words stand before it


class LatinNames:
    def __init__(self, known: Gazetteer) -> None:
        self._known = known

    def find(self, text: str) -> Iterable[Entity]:
        found: list[Entity] = []
        for run in _RUN.finditer(text):
            words = list(_words(run))
            for start, end in self._names(text, words):
                found.append(Entity(start, end, "person", NAMED))
        for told in _LOWER.finditer(text) if _INTRODUCES.search(text) else ():
            parts = told[1].split()
            if told[1].islower() and self._given(parts[0].capitalize()):
                found.append(Entity(told.start(1), told.end(1), "person", NAMED))
        yield from found
        yield from self._repeated(text, found)

    def _names(self, text: str, words: list[_Word]) -> Iterator[tuple[int, int]]:
        at = 0
        told = 0
        if words:
            told = _told(text, words[0].start)
        while at < len(words):
            if _is_title(words[at].text):
                told, at = 2, at + 1
                continue
            end = at
            while end < len(words) and end - at < _MOST_WORDS and self._may(words, at, end, told):
                end += 1
            if end == at:
                at += 2 if words[at].text.lower() in PLACE_BEGINS else 1
                told = 0
                continue
            is_group = end < len(words) and words[end].text.lower() in GROUP_WORDS
            if not is_group:
                begin = self._begin(text, words, at, end, told)
                if begin is not None:
                    yield words[begin].start, words[end - 1].end
            at, told = end, 0

    def _may(self, words: list[_Word], at: int, here: int, told: int) -> bool:
        """Whether the word at ``here`` may be in a name that begins at ``at``."""
        word = words[here].text
        plain = word.lower()
        if plain in NEVER:
            if here > at:  # Anna De Luca
                return here < len(words) - 1 and plain in _ARTICLES
            # Sem Wolters, where a name is told of: "sem" is a small word of another language.
            return (
                told > 0
                and self._given(word) > 0
                and here + 1 < len(words)
                and self._family(words[here + 1].text) == 2
            )
        if plain not in RARELY:
            return True
        if here == at:
            return self._given(word) > 0
        is_last = here == len(words) - 1 or words[here + 1].text.lower() not in GROUP_WORDS
        return (
            is_last
            and self._given(words[at].text) == 2
            and (self._family(word) > 0 or self._given(word) > 0)
        )

    def _begin(self, text: str, words: list[_Word], at: int, end: int, told: int) -> int | None:
        """The first of the words from ``at`` to ``end`` that a name begins with."""
        following = _NEXT.match(text, words[end - 1].end)
        after = 1 if following and following[1] in _AFTER else 0
        for begin in range(at, end):
            here = told if begin == at else 0
            if begin > at and words[begin].is_small:
                break
            given = self._given(words[begin].text)
            is_shouted = words[begin].text.isupper() and len(words[begin].text) > 1
            if end - begin == 1:
                if self._stands_alone(words[begin].text, here, is_shouted):
                    return begin
                continue
            family = max(self._family(word.text) for word in words[begin + 1 : end])
            form = 1 if _FORM.fullmatch(words[end - 1].text) else 0
            is_initial = words[begin].text.endswith(".")
            score = (
                given
                + family
                + form
                + 2 * (here == 2)
                + (here == 1)
                + after
                + (family > 0 and is_initial)
            )
            if is_shouted and given + family < 3 and here < 2:
                continue
            if score >= 2 and (given or family or form or here == 2):
                return begin
        return None

    def _stands_alone(self, word: str, told: int, is_shouted: bool) -> bool:
        """Whether one word is a name by itself: one that many know, or that is told to be one."""
        if len(word) < 2 or word.endswith("."):
            return False
        if told == 2:
            return True
        if is_shouted or word.lower() in RARELY:
            return False
        parts = word.split("-")
        known = self._known
        if told and all(part in known.given or part in known.given_words for part in parts):
            return True
        return all(part in known.given_alone for part in parts)

    def _given(self, word: str) -> int:
        return self._level(word, self._known.given, self._known.given_words)

    def _family(self, word: str) -> int:
        return self._level(word, self._known.family, self._known.family_words)

    def _level(self, word: str, sure: frozenset[str], words: frozenset[str]) -> int:
        """2: it is in ``sure``, 1: in ``words``, or one that is rarely a name; 0: none."""
        best = 0
        for part in (word, *word.split("-")) if "-" in word else (word,):
            plain = part.capitalize() if part.isupper() and len(part) > 2 else part
            level = 2 if plain in sure else 1 if plain in words else 0
            best = max(best, min(level, 1) if plain.lower() in RARELY else level)
        return best

    def _repeated(self, text: str, found: list[Entity]) -> Iterator[Entity]:
        """Parts of full names that stand alone elsewhere: who was called Ann Lee is Lee later."""
        parts: set[str] = set()
        for one in found[:_MOST_REPEATED]:
            words = text[one.start : one.end].split()
            if len(words) > 1:
                parts.update(
                    word
                    for word in (words[0], words[-1])
                    if len(word) > 3 and word[0].isupper() and self._is_telling(word)
                )
        for part in parts:  # no expression is made of them: its module would remember names
            at = text.find(part)
            while at >= 0:
                end = at + len(part)
                if not any(map(str.isalnum, text[max(0, at - 1) : at] + text[end : end + 1])):
                    yield Entity(at, end, "person", NAMED)
                at = text.find(part, end)

    def _is_telling(self, word: str) -> bool:
        return (
            word.lower() not in NEVER
            and word.lower() not in RARELY
            and word not in self._known.given_words
            and word not in self._known.family_words
        )


def _words(run: re.Match[str]) -> Iterator[_Word]:
    last = 0
    for found in _TOKEN.finditer(run[0]):
        word = found[0]
        end = found.end()
        if word.endswith("'s"):
            word, end = word[:-2], end - 2
        is_initial = word.endswith(".") and len(word.split(".")[0]) == 1
        if word.endswith(".") and not is_initial:
            word = word[:-1]
            end -= not _is_title(word)
        yield _Word(
            run.start() + found.start(),
            run.start() + end,
            word,
            found.start() - last > 1 and last > 0,
        )
        last = found.end()


def _told(text: str, start: int) -> int:
    """2: the words before ``start`` leave no doubt that a name follows; 1: one may well; else 0."""
    before = text[max(0, start - _LOOK_BACK) : start]
    stripped = before.rstrip(" .,:=\n\t")
    gap = before[len(stripped) :]
    if gap == "" or len(gap) > 4 or gap.count("\n") > 1:
        return 0
    words = stripped.lower().split()[-4:]
    for first in range(len(words)):
        phrase = " ".join(words[first:])
        if phrase in _SURE:
            # A full stop ends the sentence, and with it what it says, but for abbreviations.
            if "." in gap and len(phrase) > 4:
                return 0
            if phrase in ("name", "names") and first and words[first - 1] in _OTHER_NAMES:
                return 0
            return 2
    return 1 if words and words[-1] in _PERHAPS and "." not in gap else 0


def _is_title(word: str) -> bool:
    return word.lower() in TITLES and word != "M."

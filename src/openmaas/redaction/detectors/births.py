"""Dates of birth: a date, and words near it that say what happened on it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from openmaas.redaction.cues import Cues, around_digits
from openmaas.redaction.entity import SHAPED, Entity
from openmaas.redaction.policy import Kind

_MONTHS = (
    "jan(?:uary|uar|vier|eiro)? feb(?:ruary|ruar|r)? mar(?:ch|s|zo|t|ço)? apr(?:il|ile)? may june?"
    " july? aug(?:ust|ustus)? sept?(?:ember|iembre|embre)? o[ck]t(?:ober|ubre|obre)?"
    " nov(?:ember|iembre|embre)? de[cz](?:ember|embre)? märz mai juni juli janvier février avril"
    " juin juillet août octobre novembre décembre enero febrero abril mayo junio julio agosto"
    " septiembre octubre noviembre diciembre gennaio febbraio aprile maggio giugno luglio settembre"
    " ottobre dicembre januari februari maart mei augustus stycznia lutego marca kwietnia maja"
    " czerwca lipca sierpnia września października listopada grudnia fevereiro março maio junho"
    " julho setembro outubro novembro dezembro januar februar mars juni augusti ocak şubat mart"
    " nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık"
    " يناير فبراير مارس أبريل إبريل ابريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر اكتوبر نوفمبر ديسمبر"
    " كانون_الثاني شباط آذار نيسان أيار حزيران تموز آب أيلول تشرين_الأول تشرين_الثاني كانون_الأول"
)
_MONTH = (
    "(?:" + "|".join(sorted(_MONTHS.replace("_", " ").split(" "), key=len, reverse=True)) + r")\.?"
)
_DAY, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:1[89]\d\d|20\d\d)"
_NUMBER = r"(?:0?[1-9]|1[0-2])"
_DATE = re.compile(
    rf"(?<!\d)(?<!\d[.,/-])(?=\d)(?:"
    rf"{_YEAR}([-/.]){_NUMBER}\1{_DAY}"
    rf"|{_DAY}([-/.]) ?{_DAY}\2 ?(?:{_YEAR}|\d\d)"
    rf"|{_YEAR} ?年 ?{_NUMBER} ?月 ?{_DAY} ?日?"
    rf"|{_DAY}(?:\.|st|nd|rd|th|er|º|°|ª)?(?: (?:of|de|d'))? ?{_MONTH},?"
    rf"(?: (?:of|de|del|عام|سنة))? (?:{_YEAR}|\d\d)"
    rf")(?![\d/]|[-.,]\d)",
    re.IGNORECASE,
)
_ENGLISH_DATE = re.compile(
    r"(?<![^\W_])(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)[a-z]{0,6}\.?"
    rf" {_DAY}(?:st|nd|rd|th)?,? {_YEAR}(?![\d/]|[-.,]\d)"
)
_CUE = Cues(
    "born birth birthday birthdate dob d.o.b. d.o.b date_of_birth",
    "geboren geb geb. geburtsdatum geburtstag geburt",
    "né née naissance anniversaire",
    "nacido nacida nació nacimiento nací cumpleaños",
    "nato nata nascita nacque compleanno",
    "geboortedatum geboorte verjaardag jarig",
    "urodzony urodzona urodzenia urodził urodziła ur. urodziny",
    "nascido nascida nascimento nasceu nasci aniversário",
    "född födelsedatum doğum doğumlu syntynyt født fødselsdato",
    "出生 生日 生于 生於 诞生 诞辰 生年月日",
    "الميلاد ميلاد مواليد ولد ولدت وُلد المولود مولود ميلاده ميلادها",
)
_REACH = 70  # farther than a cue may be
_END = re.compile(r"[;。؛\n]|[.!?؟] (?=\w)")


class Births:
    kinds: tuple[Kind, ...] = ("birth_date",)

    def find(self, text: str) -> Iterable[Entity]:
        for start, end in around_digits(text, _REACH):
            if _CUE.within(text, start, end):
                for pattern in (_DATE, _ENGLISH_DATE):
                    for found in pattern.finditer(text, start, end):
                        if _told(text, found.start(), found.end()):
                            yield Entity(found.start(), found.end(), "birth_date", SHAPED)


def _told(text: str, start: int, end: int) -> bool:
    """Of its own sentence, or the label of its field."""
    since = max(0, start - 60)
    for stop in _END.finditer(text, since, start):
        # An abbreviation's point ends no sentence: "geb. 3. Mai 1980", "D.O.B. 3/5/1980".
        if stop[0][0] in "\n;。؛!?؟" or not _CUE.within(
            text, max(since, stop.start() - 12), stop.end()
        ):
            since = stop.end()
    if _CUE.within(text, since, start) or (
        text[since:start].strip() == "" and _CUE.within(text, max(0, since - 30), since)
    ):
        return True
    until = end + 24
    stop_after = _END.search(text, end, until)
    return _CUE.within(text, end, stop_after.start() if stop_after else until)

"""Arabic names: a title or a given name, and the words that belong to it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from openmaas.redaction.entity import NAMED, Entity
from openmaas.redaction.gazetteer import Gazetteer

_WORD = re.compile("[\u0621-\u064a\u0671-\u06d3]+")
_TITLES = frozenset(
    "السيد السيدة سيد سيدة الأستاذ الأستاذة أستاذ أستاذة الدكتور الدكتورة دكتور دكتورة المهندس"
    " المهندسة الشيخ الآنسة الحاج الحاجة الأمير"
    " الأميرة الملازم العقيد النقيب المحامي المحامية القاضي الطبيب الطبيبة المدير المديرة الموظف"
    " الموظفة العميل العميلة المريض المريضة"
    " الطالب الطالبة الزميل الزميلة المدعو المدعوة المواطن المواطنة الأخ الأخت صديقي صديقتي زميلي"
    " زميلتي جاري والدي أخي أختي زوجتي زوجي"
    " الكاتب الكاتبة الصحفي الصحفية اللاعب الممثل الممثلة الرئيس الوزير".split()
)
_CUES = frozenset(
    "اسمي اسمه اسمها الاسم أدعى يدعى تدعى يُدعى اسم عزيزي عزيزتي المرسل المستلم التوقيع"
    " الموقع أنا".split()
)
_LINKS = frozenset("بن ابن بنت أبو ابو أبا أبي أم ام آل عبد ولد".split())
_STOP = frozenset(
    "في من على إلى الى عن مع هو هي هم كان كانت قال قالت يقول تقول الذي التي الذين هذا هذه ذلك تلك"
    " ثم أو أن إن أنه أنها لا ما لم لن قد"
    " كل بعد قبل عند حتى بين منذ حيث ولد ولدت يعمل تعمل يسكن تسكن يعيش تعيش يقيم تقيم اتصل اتصلت"
    " كتب كتبت أرسل أرسلت وصل وصلت طلب طلبت"
    " رقم رقمه رقمها هاتف هاتفه هاتفها جوال بريد عنوان عنوانه عنوانها تاريخ شارع حي مدينة طريق"
    " يوم أمس اليوم غدا صباح مساء الساعة عام سنة"
    " المحترم المحترمة الكريم الكريمة مرحبا شكرا أود أريد يريد تريد زار زارت سافر سافرت وقع وقعت"
    " حضر حضرت تقدم تقدمت دفع دفعت أكد أكدت"
    " العربية الإنجليزية الجامعة الشركة المستشفى المدرسة الوزارة البنك المدينة الدولة الحكومة"
    " العالم الناس الآن جدا اليوم الماضي الماضية"
    " القادم صاحب صاحبة رئيس مدير لدى لديه لديها أيضا فقط غير سوى يحمل تحمل موظف موظفة مريض انتقل"
    " انتقلت يرجى الرجاء وهو وهي لكن عبر ذهب ذهبت"
    " اشترى اشترت حجز حجزت قدم قدمت استلم استلمت التقى التقت"
    " عاد عادت وعد وعدت سأل سألت شكر شكرت".split()
)
_PLACES = frozenset("ظبي القرى درمان قير صلال".split())
_MOST = 6


class ArabicNames:
    def __init__(self, known: Gazetteer) -> None:
        self._given, self._family = known.arabic_given, known.arabic_family
        self._family_words = frozenset(
            word for name in known.arabic_family for word in name.split()
        )

    def find(self, text: str) -> Iterable[Entity]:
        words = [(one.start(), one.end(), one[0]) for one in _WORD.finditer(text)]
        at = 0
        while at < len(words):
            end = self._end(text, words, at)
            if end is None:
                at += 1
                continue
            begin = words[at][0] + (0 if self._is_given(words[at][2]) != 2 else 1)
            yield Entity(begin, words[end - 1][1], "person", NAMED)
            at = end

    def _end(self, text: str, words: list[tuple[int, int, str]], at: int) -> int | None:
        """Behind the last word of the name that begins at ``at``."""
        told = at > 0 and self._tells(text, words, at)
        given = self._is_given(words[at][2]) or self._is_compound(text, words, at)
        if (
            words[at][2] in _STOP
            or words[at][2] in _TITLES
            or not (told or given or words[at][2] in _LINKS)
        ):
            return None
        end = at + 1
        while (
            end < len(words)
            and end - at < _MOST
            and _is_space(text, words[end - 1][1], words[end][0])
        ):
            word = words[end][2]
            linked = words[end - 1][2] in _LINKS
            if word in _STOP and word not in _LINKS and (not linked or word == "من"):
                break
            if not (linked or word in _LINKS or self._belongs(word) or (told and end - at < 2)):
                break
            end += 1
        while end > at + 1 and words[end - 1][2] in _LINKS:
            end -= 1
        return end if told or (given and end - at > 1) else None

    def _tells(self, text: str, words: list[tuple[int, int, str]], at: int) -> bool:
        """Whether the words before say that a name follows."""
        _, end, word = words[at - 1]
        between = text[end : words[at][0]]
        if word in _TITLES or (word[1:] in _TITLES and word[0] in "ولبف"):
            return between in (" ", " / ", "/ ", "/", ". ")
        if word.startswith("لل") and "ا" + word[1:] in _TITLES:
            return between == " "
        return word in _CUES and between.strip() in ("", ":", "،", "هو", "هي")

    def _is_given(self, word: str) -> int:
        """1: it is a given name; 2: it is one behind a letter that is a word (and, to, by)."""
        if word in self._given:
            return 1
        return 2 if len(word) > 3 and word[0] in "ولبف" and word[1:] in self._given else 0

    def _is_compound(self, text: str, words: list[tuple[int, int, str]], at: int) -> bool:
        """عبد and what follows it, and names after a child."""
        if words[at][2] not in ("عبد", "أبو", "ابو", "أم") or at + 1 == len(words):
            return False
        after = words[at + 1][2]
        return (
            _is_space(text, words[at][1], words[at + 1][0])
            and after not in _PLACES
            and (after in self._given or (words[at][2] == "عبد" and after.startswith("ال")))
        )

    def _belongs(self, word: str) -> bool:
        return (
            word in self._given
            or word in self._family
            or word in self._family_words
            or (
                word.startswith("ال")
                and len(word) > 4
                and word not in _STOP
                and word not in _TITLES
            )
        )


def _is_space(text: str, start: int, end: int) -> bool:
    return text[start:end] in (" ", "\u00a0")

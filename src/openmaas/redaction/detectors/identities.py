"""National identifiers, by their forms, their check digits and the words before them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date
from typing import NamedTuple

from stdnum import luhn, verhoeff
from stdnum.at import vnr
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.bg import egn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.ee import ik
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.gr import amka
from stdnum.hr import oib
from stdnum.ie import pps
from stdnum.il import idnr as teudat_zehut
from stdnum.in_ import aadhaar, pan
from stdnum.iso7064 import mod_11_2
from stdnum.it import codicefiscale
from stdnum.mx import curp
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import cc, nif
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.th import pin
from stdnum.tr import tckimlik
from stdnum.us import itin, ssn
from stdnum.za import idnr as south_african

from openmaas.redaction.cues import Cues, Near, has_digit
from openmaas.redaction.entity import CHECKED, SHAPED, Entity
from openmaas.redaction.policy import Kind

Check = Callable[[str], bool]


class Form(NamedTuple):
    """One way in which an identifier is written.

    Attributes:
        pattern: of the whole; digits, letters and separators.
        check: whether it can be one. All it is told is what ``pattern`` matches.
        cue: words that must stand before it; ``None``: its form is telling.
        score: ``CHECKED`` where the check leaves one in ten at most to chance.
    """

    pattern: re.Pattern[str]
    check: Check
    cue: Cues | None = None
    score: float = CHECKED


def _form(pattern: str, check: Check, *cue: str, score: float = CHECKED) -> Form:
    return Form(re.compile(pattern, re.ASCII), check, Cues(*cue) if cue else None, score)


def _any(_: str) -> bool:
    return True


def _american(text: str) -> bool:
    return bool(ssn.is_valid(text) or itin.is_valid(text))


def _chinese(text: str) -> bool:
    plain = text.replace(" ", "")
    return mod_11_2.is_valid(plain) and _is_date(plain[8:10], plain[10:12], plain[12:14])


def _korean(text: str) -> bool:
    """Its last digits are drawn since 2020: the date alone can be checked."""
    return _is_date(text[:2], text[2:4], text[4:6])


def _danish(text: str) -> bool:
    return _is_date(text[4:6], text[2:4], text[:2]) and not cpr.compact(text).endswith("0000")


def _saudi(text: str) -> bool:
    return luhn.is_valid(text)


def _singapore(text: str) -> bool:
    total = sum(w * int(d) for w, d in zip((2, 7, 6, 5, 4, 3, 2), text[1:8], strict=True))
    total += {"T": 4, "G": 4, "M": 3}.get(text[0], 0)
    letters = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "F": "XWUTRQPNMLK", "G": "XWUTRQPNMLK"}
    return text[0] == "M" or letters[text[0]][total % 11] == text[-1]


def _japanese(text: str) -> bool:
    digits = [int(sign) for sign in text if sign.isdigit()]
    total = sum(d * (n + 1 if n <= 6 else n - 5) for n, d in enumerate(reversed(digits[:11]), 1))
    return digits[-1] == (0 if total % 11 <= 1 else 11 - total % 11)


def _emirati(text: str) -> bool:
    return luhn.is_valid(re.sub(r"\D", "", text))


def _egyptian(text: str) -> bool:
    return _is_date(text[1:3], text[3:5], text[5:7])


def _african(text: str) -> bool:
    return south_african.is_valid(text) and _is_date(text[:2], text[2:4], text[4:6])


def _aadhaar(text: str) -> bool:
    return aadhaar.is_valid(text) and verhoeff.is_valid(re.sub(r"\D", "", text))


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        date(2000 + int(year), int(month), int(day))  # 2000 leaps, as most that end alike do
    except ValueError:
        return False
    return True


_ID = "id identity identification identifier identity_number id_number national_id nid"
_SOCIAL = "ssn social_security social_security_number social_security_no itin tin taxpayer"
_PASSPORTS = (
    "passport passport_no passport_number reisepass reisepassnummer pass-nr personalausweis"
    " ausweisnummer passeport carte_d'identité pasaporte passaporto carta_d'identità paspoort"
    " paspoortnummer paszport paszportu dowód dowodu passaporte 护照 护照号 جواز جواز_السفر"
)
# Digits and separators alone.
_NUMBERS = (
    _form(r"\d{3}-\d\d-\d{4}", _american),
    _form(r"\d{3}[ -]?\d\d[ -]?\d{4}", _american, _SOCIAL),
    _form(r"\d{3}-\d\d-\d{4}", _any, _SOCIAL, score=SHAPED),
    _form(r"\d{3}[ -]?\d{3}[ -]?\d{4}", nhs.is_valid, "nhs nhs_number"),
    _form(r"\d\d ?\d{3} ?\d{3} ?\d{3}", idnr.is_valid,
          "steuer-id steuerid steuer_id idnr id-nr steueridentifikationsnummer"
          " steuer-identifikationsnummer identifikationsnummer steuernummer tax_id"),
    _form(r"[1-478] ?\d\d ?\d\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d", nir.is_valid),
    _form(r"\d{4}\.?\d\d\.?\d{3}|\d{9}|\d{3}[ .]\d{3}[ .]\d{3}", bsn.is_valid,
          "bsn burgerservicenummer sofinummer sofi-nummer burgerservice"),
    _form(r"\d{11}", pesel.is_valid, "pesel peselu numer_pesel nr_pesel", score=CHECKED),
    _form(r"\d{3}\.\d{3}\.\d{3}-\d\d", cpf.is_valid),
    _form(r"\d{11}|\d{3}[ .]?\d{3}[ .]?\d{3}[ -]?\d\d", cpf.is_valid, "cpf"),
    _form(r"\d{6}[ ]?\d{8}[ ]?\d{3}\d", _chinese),
    _form(r"[2-9]\d{3}(?: \d{4} \d{4}|-\d{4}-\d{4})", _aadhaar),
    _form(r"[2-9]\d{11}", _aadhaar, "aadhaar aadhar uid uidai आधार"),
    _form(r"(?:\d\d)?\d{6}[-+]\d{4}", personnummer.is_valid),
    _form(r"(?:\d\d)?\d{10}", personnummer.is_valid,
          "personnummer personnr samordningsnummer pnr"),
    _form(r"[1-9]\d{10}", tckimlik.is_valid,
          "tc t.c. tckn t.c.kimlik kimlik kimlik_no kimlik_numarası vatandaşlık_numarası"),
    _form(r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", nn.is_valid),
    _form(r"\d{11}|\d{6}[ -]\d{3}[ .-]\d\d", nn.is_valid,
          "rijksregisternummer rijksregister registre_national numéro_national insz niss"),
    _form(r"\d{3} ?\d{3} ?\d{3}", nif.is_valid, "nif contribuinte número_de_contribuinte"),
    _form(r"\d{6}-[1-8]\d{6}", _korean),
    _form(r"[12]\d{9}", _saudi,
          "الهوية هوية هويتي الإقامة إقامة رقم_الهوية السجل_المدني iqama", _ID),
    _form(r"\d{6} \d{5}", fodselsnummer.is_valid),
    _form(r"\d{6} ?\d{5}", fodselsnummer.is_valid, "fødselsnummer fodselsnummer personnummer fnr"),
    _form(r"\d{6}-\d{4}", _danish, score=SHAPED),
    _form(r"\d{6} ?\d{4}", _danish, "cpr cpr-nr cpr-nummer personnummer", score=SHAPED),
    _form(r"756\.\d{4}\.\d{4}\.\d\d", ahv.is_valid),
    _form(r"756[ .]?\d{4}[ .]?\d{4}[ .]?\d\d", ahv.is_valid, "ahv avs ahv-nr ahv-nummer"),
    _form(r"\d{4} ?\d{6}", vnr.is_valid,
          "svnr sv-nr sozialversicherungsnummer versicherungsnummer sv-nummer"),
    _form(r"\d{6}/\d{3,4}", rc.is_valid),
    _form(r"[1-8]\d{12}", cnp.is_valid, "cnp cod_numeric cod_numeric_personal"),
    _form(r"\d{13}|\d{6} \d{4} \d{3}", _african, _ID, "rsa_id sa_id"),
    _form(r"\d{9}|\d{3} \d{3} \d{3}|\d{3}-\d{3}-\d{3}", sin.is_valid, "sin social_insurance nas"),
    _form(r"\d{3} ?\d{3} ?\d{2,3}", tfn.is_valid, "tfn tax_file tax_file_number"),
    _form(r"\d{11}", oib.is_valid, "oib"),
    _form(r"\d{9}", teudat_zehut.is_valid, "תעודת_זהות teudat_zehut ת.ז", _ID),
    _form(r"\d{10}", egn.is_valid, "егн egn"),
    _form(r"[1-6]\d{10}", ik.is_valid, "isikukood asmens_kodas"),
    _form(r"\d{11}", amka.is_valid, "αμκα amka"),
    _form(r"\d-\d{4}-\d{5}-\d\d-\d", pin.is_valid),
    _form(r"\d{13}", pin.is_valid, "เลขประจำตัวประชาชน บัตรประชาชน thai_id"),
    _form(r"\d{4}[ -]?\d{4}[ -]?\d{4}", _japanese, "マイナンバー 個人番号 my_number"),
    _form(r"784-\d{4}-\d{7}-\d", _emirati),
    _form(r"784-?\d{4}-?\d{7}-?\d", _emirati, "الهوية هوية emirates_id"),
    _form(r"[23]\d{13}", _egyptian, "الرقم_القومي القومي قومي national_id", score=SHAPED),
    _form(r"\d{8,9}", _any, _PASSPORTS, score=SHAPED),
)  # fmt: skip
# With letters in them.
_MIXED = (
    _form(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]", _any, score=SHAPED),
    _form(r"[A-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-Z]", _any,
          "ni nino national_insurance national_insurance_number insurance_number", score=SHAPED),
    _form(r"[1-478] ?\d\d ?\d\d ?2[AB] ?\d{3} ?\d{3} ?\d\d", nir.is_valid),
    _form(r"\d{8}[ -]?[A-HJ-NP-TV-Z]", dni.is_valid),
    _form(r"\d\d\.\d{3}\.\d{3}-?[A-HJ-NP-TV-Z]", lambda text: dni.is_valid(text.replace(".", ""))),
    _form(r"[XYZ][ -]?\d{7}[ -]?[A-HJ-NP-TV-Z]", nie.is_valid),
    _form(r"[A-Z]{6}[0-9L-NP-V]{2}[A-EHLMPR-T][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z]",
          codicefiscale.is_valid),
    _form(r"[A-Z]{3} [A-Z]{3} [0-9L-NP-V]{2}[A-EHLMPR-T][0-9L-NP-V]{2} [A-Z][0-9L-NP-V]{3}[A-Z]",
          codicefiscale.is_valid),
    _form(r"\d{17}X", _chinese),
    _form(r"[A-Z]{3}[ABCFGHLJPTK][A-Z]\d{4}[A-Z]", pan.is_valid),
    _form(r"\d{6}[-+A-FYXWVU]\d{3}[0-9A-FHJ-NPR-Y]", hetu.is_valid),
    _form(r"\d{8} ?\d ?[A-Z0-9]{2}\d", cc.is_valid,
          "cc cartão_de_cidadão cartão_do_cidadão"),
    _form(r"\d{7}[A-W][A-IW]?", pps.is_valid, "pps ppsn pps_number pps_no"),
    _form(r"[A-Z][AEIOUX][A-Z]{2}\d{6}[HMX][A-Z]{2}[B-DF-HJ-NP-TV-Z]{3}[0-9A-Z]\d", curp.is_valid),
    _form(r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", rut.is_valid),
    _form(r"\d{7,8}-[\dkK]", rut.is_valid, "rut run"),
    _form(r"[STFGM]\d{7}[A-Z]", _singapore),
    _form(r"[A-Z]{1,3}\d{6,8}[A-Z0-9]?|[A-Z0-9]*\d[A-Z0-9]{7,8}", _any, _PASSPORTS, score=SHAPED),
)  # fmt: skip

_NUMBER = re.compile(
    r"(?<![\w#$€£¥.-])(?<!\d[,:/])\d(?:[ ./-]?\d){7,19}(?![\w%€£¥$]|[.,:/-]\d|-\w)", re.ASCII
)
_WITH_LETTERS = re.compile(
    rf"(?<![\w#.-])(?=[A-Z ]{{0,8}}\d)"
    rf"(?:{'|'.join(form.pattern.pattern for form in _MIXED)})(?!\w)",
    re.ASCII,
)
_ANY_NUMBER, _ANY_MIXED = (
    re.compile("|".join(form.pattern.pattern for form in forms), re.ASCII)
    for forms in (_NUMBERS, _MIXED)
)
_REACH = 44
_PART = re.compile(r"[ ]")


class Identities:
    kinds: tuple[Kind, ...] = ("national_id",)

    def find(self, text: str) -> Iterable[Entity]:
        if not has_digit(text):
            return
        for found in _NUMBER.finditer(text):
            yield from _first(text, found.start(), found[0], _NUMBERS, _ANY_NUMBER)
        for found in _WITH_LETTERS.finditer(text):
            yield from _first(text, found.start(), found[0], _MIXED, _ANY_MIXED)


def _first(
    text: str, start: int, raw: str, forms: Iterable[Form], either: re.Pattern[str]
) -> Iterable[Entity]:
    """The first form of which the whole of it is, or else some of its parts are."""
    for begin, end in _stretches(raw):
        part = raw[begin:end]
        if not either.fullmatch(part):
            continue
        near = Near(text, start + begin - _REACH, start + begin)
        for form in forms:
            if (
                form.pattern.fullmatch(part)
                and (form.cue is None or form.cue.are(near))
                and form.check(part)
            ):
                yield Entity(start + begin, start + end, "national_id", form.score)
                return


def _stretches(raw: str) -> Iterable[tuple[int, int]]:
    """The whole, and less of it where other words or numbers stand beside it."""
    yield 0, len(raw)
    spaces = [found.start() for found in _PART.finditer(raw)]
    for at in spaces[-4:][::-1]:
        yield 0, at
    for at in spaces[:3]:
        yield at + 1, len(raw)
        for last in spaces[:-3:-1]:
            if last > at:
                yield at + 1, last

"""Telephone numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import phonenumbers
from stdnum import isbn

from openmaas.redaction.cues import Cues, Near, has_digit
from openmaas.redaction.entity import SHAPED, Entity
from openmaas.redaction.policy import Kind

# Only what looks like one is parsed by phonenumbers, which takes its time.
_CANDIDATE = re.compile(
    r"(?<![\w#/=$€£¥%.-])(?<!\d[,:])(?:\+ ?|\()?\(?\d(?:[ ./()-]{0,3}\d){5,18}"
    r"(?: ?(?:x|ext\.? ?)\d{1,6})?(?![\w%€£¥$]|[.,:/-]\d)",
    re.ASCII,
)
_CUE = Cues(
    "phone telephone tel tel. cell mobile mob call calling called text ring fax whatsapp sms dial"
    " reach_me reached_at hotline extension voicemail handset",
    "telefon telefonnummer handy mobil rufnummer anrufen angerufen rufen zurückrufen erreichbar"
    " telefonisch durchwahl ruf",
    "téléphone téléphoné appelé rappeler rappelez portable appelez appeler joindre joignable"
    " numéro_de_téléphone fixe",
    "teléfono telefono móvil movil llame llamar llámame llamarme llamarnos llámenos celular",
    "cellulare chiamato chiamata richiamarmi richiamare chiamarmi telefonato chiamare chiamami"
    " chiama recapito chiamate",
    "telefoonnummer gebeld telefoon mobiel bellen bel gsm nummer_bereikbaar",
    "telefonu numer_telefonu komórka komórkowy zadzwoń zadzwonić dzwonił dzwonić kontaktowy",
    "telefone ligue ligar fone contato zap",
    "telefonnr mobilnummer ring puhelin telefonen numaram telefonum",
    "电话 手机 手机号 联系方式 致电 拨打 热线 号码 來電 電話 手機 微信",
    "هاتف الهاتف هاتفي جوال الجوال جوالي رقم_الهاتف اتصل الاتصال واتساب موبايل للتواصل فاكس",
)
_OTHER = Cues(
    "order invoice ref reference isbn issn version serial sku part item article tracking ticket"
    " case id account acct claim policy batch license licence doi ean upc imei zip",
    "bestellung bestellnummer rechnung rechnungsnummer auftrag aktenzeichen artikelnummer"
    " kundennummer sendungsnummer vorgang bestell-nr",
    "commande facture référence numéro_de_commande dossier siret siren colis",
    "pedido factura referencia expediente seguimiento",
    "ordine fattura riferimento pratica spedizione",
    "bestelling bestelnummer factuur factuurnummer klantnummer zending",
    "zamówienie zamówienia faktura faktury przesyłki nip regon",
    "fatura protocolo rastreio cnpj",
    "订单 订单号 编号 单号 发票 版本 运单",
    "الطلب طلب فاتورة الفاتورة الشحنة المرجع",
)
_REACH = 32
_DATE = re.compile(
    r"(?:19|20)\d\d[-./ ](?:0?[1-9]|1[0-2])[-./ ](?:0?[1-9]|[12]\d|3[01])(?:\D.*)?"
    r"|(?:0?[1-9]|[12]\d|3[01])[-./ ](?:0?[1-9]|1[0-2])[-./ ](?:19|20)\d\d(?:\D.*)?"
    r"|(?:1[89]|20)\d\d ?- ?(?:1[89]|20)\d\d"
    r"|\d{1,3}(?:\.\d{1,3}){3}"  # a machine's address
)
_NORTH_AMERICA = re.compile(
    r"(?:(?:001|1)[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])\d{3}[ .-]\d{4}(?:x\d+)?"
)
_CHINA = re.compile(r"1[3-9]\d{9}|1[3-9]\d[ -]\d{4}[ -]\d{4}|0\d{2,3}-\d{7,8}")
_TRUNK = re.compile(r"\(?0\d")
_GROUPED = re.compile(
    r"\d{3} \d{3} \d{3}|[6789]\d\d(?: \d\d){3}|\d\d \d{3} \d\d \d\d"
    r"|\(?[1-9]\d\)? 9?\d{4}-\d{4}|\d\d(?: \d\d){3}"
)
# Who writes national numbers with a zero at first, and who groups of a fixed length.
_WITH_TRUNK = ("GB", "DE", "FR", "IT", "NL", "CH", "AT", "BE", "SE", "AU", "JP", "TR", "FI", "SA",
               "EG", "CN", "KR", "IN", "ZA")  # fmt: skip
_WITHOUT = ("ES", "PL", "PT", "BR", "NO", "DK", "CZ", "GR")


class Phones:
    kinds: tuple[Kind, ...] = ("phone",)

    def __init__(self) -> None:
        # Else each is read from a file of its own while some request waits: a millisecond each.
        for region in (*_WITH_TRUNK, *_WITHOUT):
            phonenumbers.PhoneMetadata.metadata_for_region(region)

    def find(self, text: str) -> Iterable[Entity]:
        if not has_digit(text):
            return
        for found in _CANDIDATE.finditer(text):
            raw, start = found[0], found.start()
            if raw.startswith("(") and raw.count("(") > raw.count(")"):  # of the sentence
                raw, start = raw[1:], start + 1
            if _DATE.fullmatch(raw) or (raw.startswith("97") and isbn.is_valid(raw)):
                continue
            near = Near(text, start - _REACH, start)
            cue, other_cue = _CUE.last(near), _OTHER.last(near)
            told, other = cue > other_cue, other_cue > cue
            for begin, end in _stretches(raw):
                if _is_phone(raw[begin:end], told, other):
                    yield Entity(start + begin, start + end, "phone", SHAPED)
                    break


def _stretches(raw: str) -> Iterable[tuple[int, int]]:
    """The candidate, then what is left of it without the numbers that stand before or after it."""
    yield 0, len(raw)
    spaces = [at for at, sign in enumerate(raw) if sign == " "]
    for at in spaces[:2]:
        yield at + 1, len(raw)
    for at in spaces[-2:]:
        yield 0, at


def _is_phone(raw: str, told: bool, other: bool) -> bool:
    digits = sum(map(str.isdigit, raw))
    if raw.count("(") != raw.count(")") or not 6 <= digits <= 20:
        return False
    if raw.startswith(("+", "00")):
        number = "+" + raw.lstrip("+ 0") if raw.startswith("00") else raw
        return _parses(number, ("ZZ",), exactly=False) or bool(_NORTH_AMERICA.fullmatch(raw))
    if told:
        return 7 <= digits <= 15 or "x" in raw
    if other:
        return False
    if _NORTH_AMERICA.fullmatch(raw) or _CHINA.fullmatch(raw):
        return True
    if _TRUNK.match(raw):
        return digits > 8 and _parses(raw, _WITH_TRUNK, exactly=True)
    return (
        bool(_GROUPED.fullmatch(raw))
        and not raw.endswith("000")
        and _parses(raw, _WITHOUT, exactly=True)
    )


def _parses(raw: str, regions: Sequence[str], *, exactly: bool) -> bool:
    for region in regions:
        try:
            number = phonenumbers.parse(raw, region)
        except phonenumbers.NumberParseException:
            continue
        if exactly:
            if phonenumbers.is_valid_number(number):
                return True
        elif phonenumbers.is_possible_number(number):
            return True
    return False

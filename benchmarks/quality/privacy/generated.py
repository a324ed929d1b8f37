"""Labelled texts: what Faker makes up, put into real prose."""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import phonenumbers
from faker import Faker
from quality import topics
from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.de import idnr
from stdnum.es import nie, nif
from stdnum.fr import nir
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel

PROSE = Path(__file__).parent
LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "pt_BR", "zh_CN",
           "ar_SA")  # fmt: skip
SEED = 11
BEGINNINGS = frozenset(
    "The A An It He She They We This These That But And In At On For With".split()
)
MOST_TRIES = 100_000


BIRTHS = {
    "en_US": ["%m/%d/%Y", "%B %d, %Y"], "en_GB": ["%d/%m/%Y", "%d %B %Y"],
    "zh_CN": ["%Y年%m月%d日"], "ar_SA": ["%d/%m/%Y", "%Y/%m/%d"],
}  # fmt: skip
Make = Callable[[], str]
Check = Callable[[str], bool]
BRITISH = Faker("en_GB")  # some locales' account numbers are of no country
BRITISH.seed_instance(SEED)


class Label(NamedTuple):
    start: int
    end: int
    kind: str


class Text(NamedTuple):
    text: str
    labels: list[Label]


class Made:
    """One locale's personal data.

    Attributes:
        dropped: how many of Faker's telephone numbers no network can have, of how many.
    """

    def __init__(self, locale: str, seed: int = SEED) -> None:
        self.locale, self.country = locale, locale[-2:]
        self._faker = Faker(locale)
        self._faker.seed_instance(seed)
        self.random = random.Random(seed)
        self.dropped, self.asked = 0, 0

    def __call__(self, kind: str) -> str:
        return str(getattr(self, kind)())

    def person(self) -> str:
        if self.locale == "zh_CN":
            return self._faker.name()
        return f"{self._faker.first_name()} {self._faker.last_name()}"

    def email(self) -> str:
        return self._faker.ascii_email()

    def phone(self) -> str:
        for _ in range(MOST_TRIES):
            if self.locale == "ar_SA":  # Faker's are American there
                number = self.random.choice(["05########", "+966 5# ### ####", "011 ### ####"])
                number = re.sub("#", lambda _: self._faker.random_element(string.digits), number)
            else:
                number = self._faker.phone_number()
            self.asked += 1
            try:
                if phonenumbers.is_possible_number(phonenumbers.parse(number, self.country)):
                    return self._in_script(number)
            except phonenumbers.NumberParseException:
                pass
            self.dropped += 1
        raise RuntimeError("no telephone number")

    def credit_card(self) -> str:
        number = self._faker.credit_card_number()
        if len(number) == 16 and self.random.random() < 0.5:
            number = self.random.choice(" -").join(re.findall("....", number))
        return number

    def iban(self) -> str:
        number = self._until(self._faker.iban, _is_iban, BRITISH.iban)
        return " ".join(re.findall("..?.?.?", number)) if self.random.random() < 0.5 else number

    def ip_address(self) -> str:
        return self._faker.ipv4() if self.random.random() < 0.6 else self._faker.ipv6()

    def mac_address(self) -> str:
        address = self._faker.mac_address()
        return address.replace(":", "-").upper() if self.random.random() < 0.5 else address

    def secret(self) -> str:
        def some(letters: str, count: int) -> str:
            return "".join(self.random.choices(letters, k=count))

        both, upper = string.ascii_letters + string.digits, string.ascii_uppercase + "234567"
        return self.random.choice(
            [
                f"sk-proj-{some(both, 48)}", f"AKIA{some(upper, 16)}", f"ghp_{some(both, 36)}",
                f"xoxb-{some(string.digits, 12)}-{some(both, 24)}", f"sk_live_{some(both, 24)}",
                f"AIza{some(both, 35)}", f"om-{some(both, 43)}", f"glpat-{some(both, 20)}",
                f"eyJ{some(both, 20)}.eyJ{some(both, 60)}.{some(both, 43)}",
            ]
        )  # fmt: skip

    def birth_date(self) -> str:
        day = self._faker.date_of_birth(minimum_age=1, maximum_age=100)
        forms = ["%Y-%m-%d", *BIRTHS.get(self.locale, ["%d.%m.%Y", "%d/%m/%Y"])]
        return self._in_script(day.strftime(self.random.choice(forms)))

    def address(self) -> str:
        if self.locale == "ar_SA":  # Faker's are American there
            street = self.random.choice(["شارع", "طريق"])
            number, code = self.random.randint(1, 300), self.random.randint(10000, 89999)
            part = self.random.choice(["حي النزهة", "حي العليا", "حي السلامة", "حي الروضة"])
            city = self.random.choice(["الرياض", "جدة", "الدمام", "مكة المكرمة", "أبها"])
            return self._in_script(
                f"{number} {street} {self._faker.last_name()}، {part}، {city} {code}"
            )
        address = self._faker.address()
        if self.random.random() < 0.5:
            address = re.sub(r" *\n", ", ", address)
        return address

    def national_id(self) -> str:
        return self._in_script(getattr(self, f"_{self.locale.lower()}")())

    def _in_script(self, text: str) -> str:
        """In the digits of its country, every other time."""
        if self.locale == "ar_SA" and self.random.random() < 0.5:
            return text.translate({48 + n: 0x660 + n for n in range(10)})
        return text

    def _digits(self, count: int) -> str:
        return "".join(self.random.choices(string.digits, k=count))

    def _en_us(self) -> str:
        return self._faker.ssn()

    def _en_gb(self) -> str:
        letters = self.random.choice("ABCEGHJKLMNPRSTWXYZ") + self.random.choice(
            "ABCEGHJKLMNPRSTWXYZ"
        )
        digits = self._digits(6)
        form = self.random.choice(["{}{}{}{}{}", "{} {} {} {} {}"])
        return form.format(letters, digits[:2], digits[2:4], digits[4:], self.random.choice("ABCD"))

    def _de_de(self) -> str:
        return self._until(lambda: self._digits(11), idnr.is_valid)

    def _fr_fr(self) -> str:
        number = self._until(self._faker.ssn, nir.is_valid)
        return number if self.random.random() < 0.5 else nir.format(number)

    def _es_es(self) -> str:
        if self.random.random() < 0.5:
            return self._until(self._faker.nie, nie.is_valid)
        return self._until(self._faker.nif, nif.is_valid)

    def _it_it(self) -> str:
        return self._until(self._faker.ssn, codicefiscale.is_valid)

    def _nl_nl(self) -> str:
        return self._until(self._faker.ssn, bsn.is_valid)

    def _pl_pl(self) -> str:
        return self._until(self._faker.pesel, pesel.is_valid)

    def _pt_br(self) -> str:
        return self._until(self._faker.cpf, cpf.is_valid)

    def _zh_cn(self) -> str:
        return self._faker.ssn()

    def _ar_sa(self) -> str:
        number = self.random.choice("12") + self._digits(8)
        return number + luhn.calc_check_digit(number)

    def _until(self, make: Make, is_right: Check, instead: Make | None = None) -> str:
        """What ``make`` makes, once it is right; or, where it never is, another."""
        for _ in range(50 if instead else MOST_TRIES):
            made = make()
            if is_right(made):
                return made
        if instead is None:
            raise RuntimeError("no identifier")
        return instead()


def _is_iban(number: str) -> bool:
    return bool(iban.is_valid(number, check_country=False))


def prose(locale: str) -> tuple[list[str], list[str]]:
    """Sentences with places for personal data, and some without any."""
    lines = [
        line.replace("\\n", "\n")
        for line in (PROSE / f"{locale}.txt").read_text(encoding="utf-8").splitlines()
    ]
    with_places = [line for line in lines if "{" in line]
    plain = [line for line in lines if "{" not in line]
    return with_places, plain or news()


def news() -> list[str]:
    """Sentences of BBC News in which nothing is capitalised but their beginning, as we have no
    labels of the persons that the others name."""
    texts, _ = topics.read()
    found = []
    for text in texts:
        for one in re.findall(r"(?<=[.!?] )[A-Z][^.!?]{40,200}[.!?](?= [A-Z])", text):
            if one.split()[0] in BEGINNINGS and not re.search(r"(?<!^)\b[A-Z]|[\"']", one):
                found.append(one)
    return found


def texts(locale: str, rounds: int = 12) -> tuple[list[Text], Made]:
    """Every sentence of a locale so many times, each between two that have no personal data."""
    made = Made(locale)
    places, plain = prose(locale)
    joint = "" if locale == "zh_CN" else " "
    found = []
    for _ in range(rounds):
        for place in places:
            before, after = made.random.sample(plain, 2)
            between = "\n\n" if "\n" in place else joint
            found.append(_filled(f"{before}{between}{place}{between}{after}", made))
    return found, made


def _filled(sentence: str, made: Made) -> Text:
    text, labels = "", []
    for part in re.split(r"(\{\w+\})", sentence):
        if part.startswith("{") and part.endswith("}"):
            thing = made(part[1:-1])
            labels.append(Label(len(text), len(text) + len(thing), part[1:-1]))
            text += thing
        else:
            text += part
    return Text(text, labels)


def counts(some: list[Text]) -> Counter[str]:
    return Counter(label.kind for text in some for label in text.labels)

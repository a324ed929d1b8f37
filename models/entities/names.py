"""Names, addresses and firms of many countries from Faker, a fifth of them held out.

A name is held out by its own hash, so that no first and no last name of the held-out part is ever
trained on, in any country. An address is held out by the words that make its street its own.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from faker import Faker

PEOPLE = (
    "en_US en_GB en_IE en_IN en_NZ de_DE de_AT de_CH fr_FR fr_CA es_ES es_MX es_AR it_IT pt_BR "
    "pt_PT nl_NL pl_PL sv_SE da_DK no_NO fi_FI cs_CZ sk_SK ro_RO hu_HU hr_HR sl_SI et_EE lt_LT "
    "lv_LV tr_TR id_ID vi_VN yo_NG ig_NG ha_NG zu_ZA tw_GH sw is_IS ga_IE az_AZ"
).split()
PLACES = (
    "en_US en_GB en_IE en_AU en_CA en_NZ en_IN de_DE de_AT de_CH fr_FR fr_CH es_ES es_MX it_IT "
    "pt_BR pt_PT nl_NL pl_PL sv_SE da_DK no_NO fi_FI cs_CZ sk_SK ro_RO hu_HU hr_HR sl_SI id_ID"
).split()
HELD_OUT = 5  # one name in so many
COMMON = 0.02  # a word in so many streets of a country is a kind of street, not a name
SAMPLE = 400
PARTICLES = ["van", "de", "von", "al", "bin", "della", "de la", "van der"]
TITLES = "Mr Mrs Ms Miss Dr Sir Professor Mr. Mrs. Ms. Dr. Herr Frau Señor Monsieur Madame".split()

Random = random.Random


def held_out(name: str) -> bool:
    """Whether a name, or any word of it, is in the part that is not trained on."""
    return any(_bucket(word) for word in _words(name))


def _bucket(word: str) -> bool:
    return hashlib.sha256(word.casefold().encode()).digest()[0] % HELD_OUT == 0


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text)


class Names:
    """Names of one part, held out or not; of all countries, or of some."""

    def __init__(self, seed: int, *, held: bool, people: Sequence[str] = PEOPLE) -> None:
        self.random = Random(seed)
        self._held = held
        self._people = {name: _faker(name, seed + at) for at, name in enumerate(people)}
        self._places = {name: _faker(name, ~(seed + at)) for at, name in enumerate(PLACES)}
        self._kinds = {name: _kinds(fake) for name, fake in self._places.items()}

    # --- people --------------------------------------------------------------------------------

    def first(self, fake: Any = None) -> str:
        return self._name((fake or self._person()).first_name)

    def last(self, fake: Any = None) -> str:
        return self._name((fake or self._person()).last_name)

    def person(self) -> tuple[str, str]:
        """What stands before a name (a title, or nothing), and a name as people write it."""
        fake, at = self._person(), self.random.random()
        first, last = self.first(fake), self.last(fake)
        initial = self.random.choice("ABCDEFGHJKLMNOPRSTW")
        if at < 0.46:
            return self._title(0.12), f"{first} {last}"
        if at < 0.60:
            return "", first
        if at < 0.76:
            return self._title(0.75), last
        if at < 0.81:
            return self._title(0.1), f"{first} {initial}. {last}"
        if at < 0.85:
            return self._title(0.1), f"{first[0]}. {last}"
        if at < 0.89:
            return "", f"{first} {self.first(fake)} {last}"
        if at < 0.93:
            return "", f"{first} {last}-{self.last(fake)}"
        if at < 0.96:
            return "", f"{last}, {first}"
        particle = self.random.choice(
            ["van", "de", "von", "al", "bin", "della", "de la", "van der"]
        )
        return self._title(0.1), f"{first} {particle} {last}"

    def full(self) -> str:
        fake = self._person()
        return f"{self.first(fake)} {self.last(fake)}"

    def _person(self) -> Any:
        return self.random.choice(list(self._people.values()))

    def _title(self, share: float) -> str:
        return self.random.choice(TITLES) + " " if self.random.random() < share else ""

    def _name(self, make: Callable[[], str]) -> str:
        for _ in range(200):
            name = make()
            words = _words(name)
            if words and all(_bucket(word) == self._held for word in words):
                return name
        raise SystemExit("Faker has no name of this part")

    # --- addresses -----------------------------------------------------------------------------

    def address(self) -> str:
        for _ in range(200):
            country = self.random.choice(PLACES)
            fake, kinds = self._places[country], self._kinds[country]
            street = fake.street_address().replace("\n", ", ")
            own = [word for word in _words(street) if word.casefold() not in kinds]
            if own and all(_bucket(word) == self._held for word in own):
                return self._form(fake, street)
        raise SystemExit("Faker has no address of this part")

    def _form(self, fake: Any, street: str) -> str:
        at, city, code = self.random.random(), fake.city(), fake.postcode()
        if at < 0.22:
            return street
        if at < 0.42:
            return f"{street}, {city}"
        if at < 0.62:
            return f"{street}, {code} {city}"
        if at < 0.80:
            return f"{street}, {city} {code}"
        if at < 0.86:
            return f"{street}\n{code} {city}"
        if at < 0.92:
            return f"{street}, {city}, {code}, {fake.country()}"
        if at < 0.97:
            inside = self.random.choice(["Flat", "Apt.", "Suite", "Unit", "Apartment", "Room"])
            number = f"{self.random.randint(1, 60)}{self.random.choice(['', '', 'A', 'B'])}"
            return f"{inside} {number}, {street}, {city}"
        return f"PO Box {self.random.randint(10, 9999)}, {city} {code}"

    # --- what is neither ------------------------------------------------------------------------

    def city(self) -> str:
        return str(self._places[self.random.choice(PLACES)].city())

    def firm(self) -> str:
        """A firm of an invented name, with the legal form or trade that marks it."""
        made = self.random.choice([self.last, self.city])()
        sort = "Ltd plc Inc. Inc LLC GmbH AG S.A. B.V. Corp. Group Holdings Partners Solutions"
        trade = "Bank Insurance Software Logistics Foods Motors Pharma Airlines Media Energy"
        tail = self.random.choice(f"{sort} {trade}".split())
        return f"{made} {tail}"


def _faker(locale: str, seed: int) -> Any:
    fake = Faker(locale)
    fake.seed_instance(seed)
    return fake


def _kinds(fake: Any) -> set[str]:
    """Words of many streets: Street, Apt, Strada …"""
    streets = [fake.street_address() for _ in range(SAMPLE)]
    seen = Counter(word.casefold() for street in streets for word in set(_words(street)))
    return {word for word, count in seen.items() if count >= COMMON * SAMPLE}

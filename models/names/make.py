"""Writes the lists of names that redaction knows, from the lists of the package Faker (MIT).

``python models/names/make.py``; needs the `dev` extra, and the network for the BBC's articles, of
which words in lower case are taken for common ones.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from quality import topics  # noqa: E402

TO = ROOT / "src" / "openmaas" / "redaction" / "names"
LATIN = (
    "cs_CZ da_DK de_AT de_CH de_DE en en_GB en_IE en_IN en_NZ en_US es_AR es_CO es_ES es_MX fi_FI"
    " fr_BE fr_CA fr_CH fr_FR hr_HR hu_HU id_ID it_IT nl_BE nl_NL no_NO pl_PL pt_BR pt_PT ro_RO"
    " sk_SK sl_SI sv_SE tr_TR vi_VN en_NG en_KE en_PK"
    " ga_IE yo_NG ig_NG ha_NG tw_GH zu_ZA et_EE lt_LT lv_LV"
)
ARABIC = "ar_AA ar_SA ar_PS ar_DZ"
SMALL = frozenset(
    "de del della di da do dos das du des la le van von der den zu ten ter y e i".split()
)


def lists(locales: str, kind: str) -> set[str]:
    found: set[str] = set()
    for locale in locales.split():
        provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        for name in dir(provider):
            value = getattr(provider, name)
            if kind in name and isinstance(value, list | tuple | dict):
                found.update(one for one in value if isinstance(one, str))
    return found


def everywhere(kind: str) -> set[str]:
    """Those that three locales have, or more."""
    counts = Counter(word for locale in LATIN.split() for word in words(lists(locale, kind)))
    return {word for word, count in counts.items() if count > 2}


def words(names: set[str]) -> set[str]:
    """Their words, without the small ones."""
    return {
        word
        for name in names
        for word in re.split(r"[ -]", name.replace("’", "'").strip())
        if len(word) > 2 and word[0].isupper() and word.lower() not in SMALL and "." not in word
    }


def arabic(names: set[str]) -> set[str]:
    plain = (re.sub("[\u0640\u064b-\u0652\u0670]", "", name) for name in names)
    return {name for name in plain if re.fullmatch("[\u0621-\u064a ]{3,30}", name)}


def common() -> set[str]:
    texts, _ = topics.read()
    return {word for text in texts for word in re.findall(r"(?<![\w'-])[a-z]{3,}(?![\w'-])", text)}


def write(name: str, several: set[str], told: str) -> None:
    lines = sorted(several)
    (TO / name).write_text(f"# {told}\n" + "\n".join(lines) + "\n", encoding="utf-8")
    print(name, len(lines), sum(len(one.encode()) + 1 for one in lines))


def main() -> None:
    TO.mkdir(exist_ok=True)
    given = words(lists(LATIN, "first_name"))
    family = words(lists(LATIN, "last_name"))
    ordinary = common()
    # Polish family names have a form for women.
    family |= {f"{name[:-1]}a" for name in family if re.search("[sc]ki$|dzki$", name)}
    write("given.txt", {n for n in given if n.lower() not in ordinary}, "Given names.")
    alone = {n for n in everywhere("first_name") if n.lower() not in ordinary}
    write("given_alone.txt", alone, "Given names of several languages.")
    write(
        "given_words.txt",
        {n for n in given if n.lower() in ordinary},
        "Given names that are words too.",
    )
    write("family.txt", {n for n in family if n.lower() not in ordinary}, "Family names.")
    write(
        "family_words.txt",
        {n for n in family if n.lower() in ordinary},
        "Family names that are words too.",
    )
    write("arabic_given.txt", arabic(lists(ARABIC, "first_name")), "Given names.")
    write("arabic_family.txt", arabic(lists(ARABIC, "last_name")), "Family names.")


if __name__ == "__main__":
    main()

"""Debian's package descriptions in German beside those in English, by package and text."""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
from pathlib import Path

SEED = 7
SECONDS = 240  # that apt may take

Pair = tuple[str, str]  # German, English


class Unavailable(Exception):
    """apt fetches no descriptions here."""


def fetch(*languages: str) -> dict[str, str]:
    """Descriptions of each language, as apt gives them, fetched into a folder of their own.

    Raises:
        Unavailable: there is no apt, or it reaches no archive, or that has none.
    """
    with tempfile.TemporaryDirectory() as place:
        options = {
            "Dir::State::lists": f"{place}/lists",
            "Dir::Cache": f"{place}/cache",
            "Acquire::Languages": ",".join(languages),
            "Acquire::GzipIndexes": "false",
            "APT::Sandbox::User": "root",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        (Path(place) / "lists" / "partial").mkdir(parents=True)
        (Path(place) / "cache" / "archives" / "partial").mkdir(parents=True)
        try:
            command = ["apt-get", "update", "-qq", *words]
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"apt-get update: {error}") from None
        found = {}
        for language in languages:
            files = sorted((Path(place) / "lists").glob(f"*Translation-{language}"))
            if not files:
                raise Unavailable(f"apt-get fetched no descriptions in {language}")
            found[language] = "\n\n".join(path.read_text(encoding="utf-8") for path in files)
        return found


def pairs(german: str, english: str) -> list[Pair]:
    """Different pairs of synopses of the same description, in a fixed random order; those that
    are the same in both languages are left out."""
    here, there = _synopses(german, "de"), _synopses(english, "en")
    found = sorted({(here[key], there[key]) for key in here.keys() & there.keys()})
    found = [(one, other) for one, other in found if one != other]
    random.Random(SEED).shuffle(found)
    return found


def apart(found: list[Pair], held_out: int, longest: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from, and some to judge by, of which no side is among the former.

    Args:
        longest: characters of either side, at most.
    """
    short = [pair for pair in found if max(map(len, pair)) <= longest]
    judged, known = short[:held_out], short[held_out:]
    german, english = ({pair[side] for pair in judged} for side in (0, 1))
    return [one for one in known if one[0] not in german and one[1] not in english], judged


def _synopses(text: str, language: str) -> dict[tuple[str, str], str]:
    """By package and checksum of the original."""
    pattern = re.compile(
        rf"^Package: (.*)\nDescription-md5: (.*)\nDescription-{language}: (.*)$", re.MULTILINE
    )
    return {(match[1], match[2]): match[3].strip() for match in pattern.finditer(text)}

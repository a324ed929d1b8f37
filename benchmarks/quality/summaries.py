"""Summaries of Debian's package descriptions, beside their first sentences."""

from __future__ import annotations

import random
import re
from statistics import mean

import sentencex
from quality.descriptions import fetch
from quality.tables import Table, percent

from openmaas.client import Client

SEED, COUNT, ASKED, BATCH = 7, 500, 40, 32
LEAST = 5  # sentences of a description


def descriptions(text: str, least: int = LEAST) -> list[tuple[str, str]]:
    """(body, synopsis) of each entry of a Translation-en file whose body has ``least`` sentences
    or more."""
    found = {}
    for entry in text.split("\n\n"):
        match = re.search(r"^Description-en: (.*)\n((?: .*\n?)+)", entry, re.MULTILINE)
        if match is None:
            continue
        synopsis, lines = match[1], match[2].splitlines()
        prose = " ".join(
            line.strip() for line in lines if line.startswith(" ") and line[1:2] != " "
        )
        body = " ".join(prose.replace(" . ", " ").split())
        if "*" not in body and len(list(sentencex.segment("en", body))) >= least:
            found[body] = synopsis
    return sorted(found.items())


def rouge_l(wanted: str, told: str) -> float:
    """F1 of the longest common subsequence of words (Lin, 2004)."""
    one, other = (re.findall(r"\w+", text.lower()) for text in (wanted, told))
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, another in enumerate(other, 1):
            kept = row[at]
            row[at] = before + 1 if word == another else max(row[at], row[at - 1])
            before = kept
    common = row[-1]
    return 2 * common / (len(one) + len(other)) if common else 0.0


def lead(body: str, count: int) -> str:
    return " ".join(part.strip() for part in list(sentencex.segment("en", body))[:count])


def run(client: Client) -> Table:
    entries = random.Random(SEED).sample(descriptions(fetch("en")["en"]), COUNT)
    bodies, synopses = zip(*entries, strict=True)
    rows = []
    for length, count in (("short", 1), ("medium", 3)):
        made = []
        for at in range(0, COUNT, BATCH):
            batch = bodies[at : at + BATCH]
            made += client.summarize(batch, model="minilm-l6-v2", length=length)
        scores = [rouge_l(*pair) for pair in zip(synopses, made, strict=True)]
        leads = [
            rouge_l(synopsis, lead(body, count))
            for synopsis, body in zip(synopses, bodies, strict=True)
        ]
        name = f"extractive, {length} ({count} of the text's sentences)"
        rows.append([name, str(COUNT), percent(mean(scores)), percent(mean(leads))])
    made = client.summarize(bodies[:ASKED], model="smollm2-135m", length="short")
    scores = [rouge_l(*pair) for pair in zip(synopses[:ASKED], made, strict=True)]
    leads = [
        rouge_l(synopsis, lead(body, 1))
        for synopsis, body in zip(synopses[:ASKED], bodies[:ASKED], strict=True)
    ]
    rows.append(["abstractive, short", str(ASKED), percent(mean(scores)), percent(mean(leads))])
    return Table(
        "Summaries",
        f"`/v1/summarize` of Debian's package descriptions of {LEAST} sentences or more against "
        "their one-line synopsis, beside as many of the first sentences: these descriptions begin "
        "with what the package is, so that is a strong baseline. Descriptions are their packages' "
        "own, fetched by apt. Extractive by `minilm-l6-v2`, abstractive by `smollm2-135m`.",
        ["summary", "descriptions", "ROUGE-L", "first sentences'"],
        rows,
    )

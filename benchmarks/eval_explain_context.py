"""Planted evidence: whether the one sentence that an answer is due to is ranked first.

Usage: ``eval_explain_context.py [--model smollm2-135m] [--prompts 100] [--write FILE]``. Each
prompt has twelve sentences, drawn by a seed, of which one carries the answer to the question; of
those that the model answers rightly, the answer that it wrote is explained.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import peers
from inside import asked
from serve import Model

from openmaas.explaining.ablations import uniform
from openmaas.explaining.context import PENALTY, context_cite, lasso, leave_one_out, logit
from openmaas.explaining.prompts import parts
from openmaas.explaining.scoring import Scoring
from openmaas.inference import Chat, Message, Sampling
from openmaas.serving.asking import Asking
from openmaas.tasks.asking import written

SEED, SENTENCES, BAR = 20_260, 12, 0.9
COIN = "ContextCite, 32 by a coin"
METHODS = ("leave one out", "ContextCite, 32", "ContextCite, 64", COIN)

NAMES = "Anna Ben Carla David Elena Frank Greta Henry Irene Jonas Karin Louis".split()
COLOURS = "red blue green yellow purple orange brown silver".split()
CITIES = "Lisbon Oslo Vienna Madrid Dublin Athens Prague Warsaw".split()
NUMBERS = "three seven eleven fourteen nineteen thirty forty sixty".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January March April June July August October November".split()
FACTS = [  # (sentence, question, answers)
    ("{name} works as a {what}.", "What is the job of {name}?",
     "baker nurse pilot teacher farmer lawyer painter plumber".split()),
    ("The old train goes to {what}.", "Where does the old train go?", CITIES),
    ("The door of the church is {what}.", "What colour is the door of the church?", COLOURS),
    ("The pet of {name} is a {what}.", "What is the pet of {name}?",
     "parrot rabbit goat turtle hamster duck donkey snake".split()),
    ("The secret code of the safe is {what}.", "What is the secret code of the safe?",
     "4921 7305 1864 5570 9213 3348 6027 8459".split()),
    ("A ticket to the island costs {what} euros.",
     "How many euros does a ticket to the island cost?", NUMBERS),
    ("The museum is closed on {what}.", "On which day is the museum closed?", DAYS),
    ("The stone bridge was built in {what}.", "In which year was the stone bridge built?",
     "1412 1538 1647 1722 1809 1855 1893 1931".split()),
    ("The favourite drink of {name} is {what}.", "What is the favourite drink of {name}?",
     "tea coffee milk lemonade cocoa cider juice beer".split()),
    ("The school orchestra needs a {what}.", "What does the school orchestra need?",
     "violin trumpet flute cello harp drum clarinet tuba".split()),
    ("The mayor of the town is called {what}.", "What is the mayor of the town called?",
     "Miller Novak Rossi Larsen Dubois Keller Santos Brandt".split()),
    ("The harvest festival takes place in {what}.",
     "In which month does the harvest festival take place?", MONTHS),
    ("The soup of the day is made of {what}.", "What is the soup of the day made of?",
     "carrots onions lentils mushrooms tomatoes pumpkin beans peas".split()),
    ("The lighthouse stands on a hill of {what}.", "What does the hill of the lighthouse "
     "consist of?", "granite chalk sand clay marble slate basalt gravel".split()),
]  # fmt: skip


class Planted(NamedTuple):
    text: str
    question: str
    answer: str
    place: int  # of the sentence that carries it


def planted(count: int) -> list[Planted]:
    """Prompts of twelve facts of different kinds; the question is about one of them."""
    generator = np.random.default_rng(SEED)
    made = []
    for _ in range(count):
        kinds = generator.choice(len(FACTS), SENTENCES, replace=False)
        names = generator.permutation(NAMES)
        place = int(generator.integers(SENTENCES))
        own = FACTS[kinds[place]]
        answer = str(generator.choice(own[2]))
        sentences = []
        for at, kind in enumerate(kinds):
            # No other sentence has the answer's word: there is one reason for it.
            others = [word for word in FACTS[kind][2] if word != answer]
            what = answer if at == place else str(generator.choice(others))
            sentences.append(FACTS[kind][0].format(name=names[at], what=what))
        question = own[1].format(name=names[place])
        made.append(Planted(" ".join(sentences), question, answer, place))
    return made


def conversation(one: Planted) -> list[Message]:
    return [Message(role="user", content=f"{one.text}\n\nQuestion: {one.question}")]


async def ranks(model: Asking, one: Planted, answer: str) -> dict[str, int]:
    """The place of the evidence by each method, from 1."""
    messages = conversation(one)
    found = parts(messages, "sentence")
    assert len(found) == SENTENCES
    score = Scoring(model, messages, found, answer)
    shares = {METHODS[0]: (await leave_one_out(score, SENTENCES)).attributions}
    for samples, method in zip((32, 64), METHODS[1:3], strict=True):
        cited = await context_cite(score, SENTENCES, samples, SEED, tokens=score.tokens)
        shares[method] = cited.attributions
    coins = uniform(SENTENCES, 32, SEED)
    target = logit(await score(coins)) / score.tokens
    shares[COIN] = lasso(coins.astype(float), target, PENALTY)[0]
    # Of equals the evidence is the last.
    return {method: int((values >= values[one.place]).sum()) for method, values in shares.items()}


async def evaluate(cache: Path, name: str, count: int) -> tuple[int, dict[str, list[int]]]:
    """How many were answered rightly, and the ranks of their evidence."""
    places: dict[str, list[int]] = {method: [] for method in METHODS}
    right = 0
    async with asked(cache, Model(name)) as model:
        for at, one in enumerate(planted(count)):
            # Its first sentence: small models go on to repeat the text.
            sampling = Sampling(max_tokens=24, temperature=0.0, stop=[". ", "\n"])
            answer = await written(model, Chat(messages=conversation(one), sampling=sampling))
            if one.answer.lower() not in answer.lower():
                continue
            right += 1
            for method, rank in (await ranks(model, one, answer)).items():
                places[method].append(rank)
            first = sum(rank == 1 for rank in places[METHODS[1]])
            print(f"{at + 1} of {count}: {right} right, {first} first", file=sys.stderr)
    return right, places


def shown(name: str, count: int, right: int, places: dict[str, list[int]]) -> str:
    lines = [
        f"{name} answers {right} of {count} questions rightly.",
        "",
        "| method | evidence first | of | share | mean rank |",
        "|---|--:|--:|--:|--:|",
    ]
    for method, found in places.items():
        first = sum(rank == 1 for rank in found)
        share = first / len(found) if found else 0.0
        held = "" if method == COIN else f" ({'meets' if share >= BAR else 'MISSES'} ≥ {BAR:.0%})"
        mean = f"{np.mean(found):.2f}" if found else "-"
        lines.append(f"| {method} | {first} | {len(found)} | {share:.0%}{held} | {mean} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=peers.DEFAULT_CACHE, help="for models")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--write", type=Path, help="a file for the table")
    chosen = parser.parse_args(words)
    cache = peers.cache_folder(chosen.cache)
    right, places = asyncio.run(evaluate(cache, chosen.model, chosen.prompts))
    table = shown(chosen.model, chosen.prompts, right, places)
    print(table)
    if chosen.write is not None:
        chosen.write.write_text(table + "\n")


if __name__ == "__main__":
    main()

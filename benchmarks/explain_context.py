"""What 32 ablations of a prompt of twelve sentences cost, beside the same scored one by one.

Usage: ``explain_context.py [--rounds 5] [--cache FOLDER]``. The worker of the engine is a process
of its own, and there is no HTTP between. Three ways, in turns within a round, of prompts that are
new in each:

* one after the other, without a prefix cache: a request at a time, each prompt read whole by the
  engine that continues texts, as ``classify`` has its labels scored;
* together, by a coin: all at once and with one salt, ablations drawn as ContextCite does;
* together, branching: as explanations have it, ablations that begin alike.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from eval_explain_context import SENTENCES, conversation, planted
from inside import asked
from numpy.typing import NDArray
from peers import arguments, cache_folder
from report import Rounds, machine, ratio, table
from serve import Model

from openmaas.explaining.ablations import branching, uniform
from openmaas.explaining.prompts import parts, without
from openmaas.explaining.scoring import Scoring
from openmaas.inference import Loglikelihood, Message
from openmaas.serving.asking import Asking

MODEL, SAMPLES, BAR = "smollm2-135m", 32, 0.3
PAUSE = 2.0  # seconds before a round: the last one's heat is gone
LONGER = " which people who have lived there for a long time like to tell every visitor twice"
CASES: dict[str, Callable[[str], str]] = {
    "7 words a sentence": lambda text: text,
    "23 words a sentence": lambda text: text.replace(". ", f",{LONGER}. "),
}
ALONE, COIN, OURS = "one by one", "together, by a coin", "together, branching"


async def alone(
    model: Asking, messages: list[Message], answer: str, masks: NDArray[np.bool_]
) -> float:
    found = parts(messages, "sentence")
    began = time.perf_counter()
    for mask in masks:
        await model.ask(Loglikelihood(messages=without(messages, found, mask), answers=[answer]))
    return time.perf_counter() - began


async def together(
    model: Asking, messages: list[Message], answer: str, masks: NDArray[np.bool_]
) -> float:
    found = parts(messages, "sentence")
    assert len(found) == SENTENCES
    began = time.perf_counter()
    await Scoring(model, messages, found, answer)(masks)
    return time.perf_counter() - began


async def measure(cache: Path, rounds: int) -> Rounds:
    seen = Rounds()
    async with asked(cache, Model(MODEL)) as model:
        for round_, one in enumerate(planted(rounds + 1)):
            for case, longer in CASES.items():
                messages = conversation(one._replace(text=longer(one.text + " ").strip()))
                answer = f"It is {one.answer}."
                fair = branching(SENTENCES, SAMPLES, round_)
                coins = uniform(SENTENCES, SAMPLES, round_)
                took = {
                    ALONE: await alone(model, messages, answer, fair),
                    COIN: await together(model, messages, answer, coins),
                    OURS: await together(model, messages, answer, fair),
                }
                if round_:  # the first warms
                    for who, seconds in took.items():
                        seen.add(who, case, seconds)
            print(f"round {round_} of {rounds}", flush=True)
            await asyncio.sleep(PAUSE)
    return seen


def main() -> None:
    parser = arguments(__doc__ or "")
    chosen = parser.parse_args()
    cache = cache_folder(chosen.cache)
    print(machine())
    seen = asyncio.run(measure(cache, chosen.rounds))
    rows = []
    for case in CASES:
        for who in (ALONE, COIN, OURS):
            beside = None if who == ALONE else seen.ratio(case, who, ALONE)
            bar = BAR if who == OURS else None
            rows.append([f"{case}, {who}", seen.spread(who, case), ratio(beside, bar, most=True)])
    title = (
        f"{SAMPLES} ablations of {SENTENCES} sentences, {MODEL}, medians of {chosen.rounds} rounds"
    )
    table(title, ["prompt", "seconds (least-most)", "÷ one by one"], rows)


if __name__ == "__main__":
    main()

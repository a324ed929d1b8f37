"""T3: whether the time to the first token tells a tenant what others asked.

Each pair: one asks a prompt that nobody knows, then another asks the same prompt (crossed) and one
more that nobody knows (fresh), in turns first. Crossed ÷ fresh is 1 where nothing crosses. The
control is one tenant that asks its own prompt twice: there the cache shows, where there is one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import peers
import report
from serve import scratch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.processes import ServerProcess, cli, serving  # noqa: E402
from tests.stores import deploy  # noqa: E402

MODEL = "smollm2-135m"
WORDS = 500  # of a prompt
OWN, SHARED = ("north", "east"), ("south", "west")  # tenants with replicas of their own, and others
LIST = "lamp chair river stone cloud paper metal glass bread water table light green quiet".split()


class Pair(NamedTuple):
    what: str
    first: str  # who asks a prompt first
    second: str  # who asks it then


PAIRS = [
    Pair("both in replicas of their own", "north", "east"),
    Pair("both in shared replicas", "south", "west"),
    Pair("from an own one to shared ones", "north", "south"),
    Pair("from shared ones to an own one", "south", "north"),
    Pair("control: the same tenant, own", "north", "north"),
    Pair("control: the same tenant, shared", "south", "south"),
]


class House:
    """A server, and a key of each tenant at it."""

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self._random = random.Random(seed)
        self._clients = {}
        for tenant in (*OWN, *SHARED):
            server.client.post("/v1/tenants", json={"id": tenant}).raise_for_status()
            policy = {"dedicated": tenant in OWN}
            server.client.put(f"/v1/tenants/{tenant}/privacy", json=policy).raise_for_status()
            made = server.client.post(f"/v1/tenants/{tenant}/keys", json={"name": "timing"})
            headers = {"Authorization": f"Bearer {made.json()['secret']}"}
            self._clients[tenant] = httpx.Client(base_url=server.url, headers=headers, timeout=120)

    def prompt(self) -> str:
        return " ".join(self._random.choice(LIST) for _ in range(WORDS))

    def first_token(self, tenant: str, prompt: str) -> float:
        """Seconds."""
        body = {"model": MODEL, "prompt": prompt, "max_tokens": 1, "temperature": 0, "stream": True}
        began = time.monotonic()
        with self._clients[tenant].stream("POST", "/v1/completions", json=body) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    return time.monotonic() - began
        raise RuntimeError("no token came")

    def measured(self, pair: Pair, crossed_first: bool) -> tuple[float, float]:
        """Seconds of a prompt that the first one asked before, and of one that nobody did."""
        known, fresh = self.prompt(), self.prompt()
        self.first_token(pair.first, known)
        if crossed_first:
            crossed = self.first_token(pair.second, known)
            return crossed, self.first_token(pair.second, fresh)
        cold = self.first_token(pair.second, fresh)
        return self.first_token(pair.second, known), cold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=peers.DEFAULT_CACHE, help="for models")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=11)
    chosen = parser.parse_args()
    print(report.machine())
    seen: dict[str, list[tuple[float, float]]] = {pair.what: [] for pair in PAIRS}
    with scratch() as temporary:
        data = Path(temporary) / "data"
        models = peers.cache_folder(chosen.cache) / "timing-models"
        if not models.exists():
            cli(models, "models", "pull", MODEL)
        shutil.copytree(models, data)
        deploy(data, MODEL, prefix_cache="dedicated", prompt_lookup=False)
        with serving(data) as server:
            house = House(server, chosen.seed)
            for tenant in (*OWN, *SHARED):
                house.first_token(tenant, house.prompt())  # loaded, and warm
            for number in range(chosen.pairs):
                for pair in PAIRS:
                    seen[pair.what].append(house.measured(pair, bool(number % 2)))
    rows = []
    for what, figures in seen.items():
        crossed, fresh = zip(*figures, strict=True)
        ratios = sorted(a / b for a, b in figures)
        quarter = len(ratios) // 4
        rows.append([
            what, f"{statistics.median(crossed):.3f}", f"{statistics.median(fresh):.3f}",
            f"{statistics.median(ratios):.3f}", f"{ratios[quarter]:.2f}–{ratios[-1 - quarter]:.2f}",
        ])  # fmt: skip
    header = ["who asks what the other asked", "known, s", "fresh, s", "ratio", "quartiles"]
    report.table(f"Seconds to the first token, medians of {chosen.pairs} pairs", header, rows)


if __name__ == "__main__":
    main()

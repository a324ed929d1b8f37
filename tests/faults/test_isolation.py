"""T2: interleaved requests of several tenants: each answer as alone, and no foreign canary.

Answers are compared byte for byte, numbers too: every engine here computes a row, a text or a
sequence beside others as alone, within the bounds that ``isolation.py`` tells.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.isolation import (
    DEDICATED,
    KINDS,
    TENANTS,
    Request,
    canaries,
    content,
    housed,
    requests_of,
)
from tests.processes import ServerProcess, cli, serving
from tests.registry import small_translators
from tests.stores import deploy

REQUESTS = int(os.environ.get("REQUESTS", "300"))  # `make soak-isolation` takes 10,000
SEED = 7
OWN = ["openvino_genai, prefix cache", "llamacpp", "ctranslate2_translation"]


@pytest.fixture(scope="module")
def others(
    starters: Path, gemma_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server of what ``server`` has not: replicas of tenants' own with a prefix cache,
    llama.cpp and CTranslate2."""
    folder = tmp_path_factory.mktemp("isolation")
    data = Path(shutil.copytree(starters, folder / "data"))
    small_translators.complete(folder / "marian", "marian")
    cli(data, "models", "push", "marian", str(folder / "marian"), "--deploy")
    cli(data, "models", "push", "gemma", str(gemma_folder / "model.gguf"))
    deploy(data, "gemma", threads=1)  # its threads wait by spinning
    deploy(data, "smollm2-135m", prefix_cache="dedicated")
    with serving(data) as running:
        yield running


def test_tenants_beside_each_other(server: ServerProcess) -> None:
    check(server, [kind for kind in KINDS if kind not in OWN])


def test_tenants_beside_each_other_in_caches_and_slots(others: ServerProcess) -> None:
    check(others, OWN, DEDICATED)
    seen = [
        one
        for one in others.client.get("/v1/deployments").json()["data"]
        if one["model"] == "smollm2-135m"
    ]
    assert {one["serves"] for one in seen} == {None, *DEDICATED}
    asked = {  # of each process, whether its engine keeps what prompts begin with
        one["serves"]: f'"prefix_cache":{str(one["serves"] is not None).lower()}'
        in Path(f"/proc/{one['workers'][0]['pid']}/cmdline").read_text()
        for one in seen
    }
    assert all(asked.values()), asked


def check(server: ServerProcess, kinds: list[str], dedicated: tuple[str, ...] = ()) -> None:
    rng = random.Random(SEED)
    with housed(server, dedicated) as house:
        alone = {}
        for kind in kinds:
            asked = requests_of(kind)
            # The second time: what comes from a cache is rounded otherwise than the first time.
            for one in asked:
                house.ask(one)
            answers = [house.ask(one) for one in asked]
            alone |= {
                name(one): content(answer) for one, answer in zip(asked, answers, strict=True)
            }
            assert len({str(content(answer)) for answer in answers}) >= len(TENANTS), kind
            own = sum(one.tenant in canaries(got) for one, got in zip(asked, answers, strict=True))
            assert not KINDS[kind].says or own > len(asked) / 2, kind  # it would be seen
        plan = [
            rng.choice(requests_of(kind))
            for kind in kinds
            for _ in range(max(1, REQUESTS * KINDS[kind].share // 100))
        ]
        rng.shuffle(plan)
        differ = []
        for one, answer in house.interleaved(plan):
            assert canaries(answer) <= {one.tenant}
            if content(answer) != alone[name(one)]:
                differ.append((one, content(answer), alone[name(one)]))
        assert not differ, f"{len(differ)} of {len(plan)}, such as {differ[0]}"


def name(request: Request) -> str:
    return json.dumps(request)

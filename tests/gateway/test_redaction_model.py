"""A redaction policy that asks a model for names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.gateway.redacting import House, furnished
from tests.processes import pulled, serving
from tests.stores import ME, deploy, opened

from openmaas.redaction.policy import RedactionPolicy
from openmaas.tenancy.privacy import PrivacyPolicy

TAGGER = "entities"
TEXT = "Barack Obama met the mayor, and Barack Obama left."
# Of persons only what the model finds: the words of lists and forms are of other kinds.
POLICY = RedactionPolicy(action="hide", kinds=("person", "email"), model=TAGGER)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    source = pulled(tmp_path_factory, "tagger", ["digits", TAGGER])
    folder = tmp_path_factory.mktemp("tagging")
    data = Path(shutil.copytree(source, folder / "data"))
    deploy(data, TAGGER)
    keys = furnished(data, folder / "seen.jsonl", {"asks": POLICY, "off": RedactionPolicy()})
    with opened(data) as store:
        absent = msgspec.structs.replace(POLICY, model="nobody")
        store.tenants.create("absent", ME)
        store.tenants.change("absent", ME, privacy=PrivacyPolicy(redaction=absent))
    with serving(data) as server:
        yield House(server, keys, folder / "seen.jsonl")


def chat(text: str) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}], "max_tokens": 30}


def test_what_the_model_finds_is_hidden(house: House) -> None:
    answer = house.post("/v1/chat/completions", chat(TEXT), "asks")
    assert answer.json()["choices"][0]["message"]["content"].startswith(TEXT)
    assert "Obama" not in house.seen()
    assert answer.headers["x-openmaas-model"] == "echo@1"
    request = answer.headers["x-request-id"]
    rows = house.server.client.get("/v1/tenants/asks/usage/rows").json()["data"]
    mine = [one for one in rows if one["request"] == request]
    assert [(one["part"], one["model"]) for one in mine] == [(0, "echo"), (1, TAGGER)]
    assert all(one["outcome"] == "ok" and one["input_tokens"] > 0 for one in mine)


def test_the_spans_that_callers_ask_for_are_of_their_own_text(house: House) -> None:
    body = {"model": TAGGER, "input": f"Write to a.b@example.org, says {TEXT}"}
    hidden, plain = (house.answer("/v1/entities", body, tenant) for tenant in ("asks", "off"))
    assert "a.b@example.org" not in json.dumps(hidden)
    assert plain["data"]


def test_where_the_model_is_not_there_nothing_passes(house: House) -> None:
    from openmaas.tenancy.keys import NewKey

    with opened(house.server.data) as store:
        _, secret = store.keys.create(NewKey(name="absent", tenant="absent"), ME)
    house.keys["absent"] = secret
    house.seen()
    answer = house.post("/v1/chat/completions", chat(TEXT), "absent")
    assert answer.status_code == 503
    assert "nobody" in answer.json()["error"]["message"]
    assert house.seen() == ""

"""Policies of privacy over HTTP, at the command line and through the client."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.gateway.redacting import EMAIL, House, furnished
from tests.processes import cli, serving

from openmaas.client import ApiError, Client
from openmaas.redaction.policy import RedactionPolicy

HIDE = {"redaction": {"action": "hide", "kinds": ["email"]}}


@pytest.fixture(scope="module")
def house(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("policies")
    data = Path(shutil.copytree(digits_only, folder / "data"))
    keys = furnished(data, folder / "seen.jsonl", {"acme": RedactionPolicy()})
    with serving(data) as server:
        yield House(server, keys, folder / "seen.jsonl")


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with Client(house.server.url, house.keys["acme"]) as made:
        yield made


def say(house: House, text: str) -> httpx.Response:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], "max_tokens": 12}
    return house.post("/v1/chat/completions", body, "acme")


def test_a_policy_holds_soon_after_it_is_set(house: House, client: Client) -> None:
    assert not client.privacy.policy("acme").get("redaction")
    assert client.privacy.set_policy("acme", HIDE | {"withdraw": True}) == HIDE | {"withdraw": True}
    house.server.wait_until(lambda: "x-openmaas-redacted" in say(house, EMAIL).headers, 5)
    house.seen()
    assert say(house, EMAIL).is_success
    assert EMAIL not in house.seen()
    (key,) = [one for one in client.tenants.keys("acme") if one["name"] == "acme"]
    client.privacy.set_key("acme", key["id"], {"action": "block"})
    house.server.wait_until(lambda: say(house, EMAIL).status_code == 400, 5)
    client.privacy.set_key("acme", key["id"], None)
    house.server.wait_until(lambda: say(house, EMAIL).is_success, 5)
    client.privacy.set_policy("acme", {})
    house.server.wait_until(lambda: "x-openmaas-redacted" not in say(house, EMAIL).headers, 5)


def test_what_cannot_be_a_policy(house: House, client: Client) -> None:
    for policy in (
        {"redaction": {"action": "hide", "patterns": {"bad": "(a+)+$"}}},
        {"redaction": {"action": "hide", "patterns": {"bad": "["}}},
        {"redaction": {"action": "hide", "patterns": {"Not A Label": "a"}}},
        {"redaction": {"action": "hide", "kinds": ["shoe_size"]}},
        {"redaction": {"action": "hide", "model": "nobody"}},
        {"redaction": {"action": "shout"}},
        {"retain_days": 0},
        {"unknown": True},
    ):
        with pytest.raises(ApiError) as caught:
            client.privacy.set_policy("acme", policy)
        assert caught.value.status == 400, policy
    assert not client.privacy.policy("acme").get("redaction")


def test_dedicated_replicas_take_an_admin(house: House, client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.privacy.set_policy("acme", {"dedicated": True})
    assert caught.value.status == 403
    with Client(house.server.url, house.server.key) as admin:
        assert admin.privacy.set_policy("acme", {"dedicated": True}) == {"dedicated": True}
        # which a tenant's own manager may leave as it is, and change the rest
        assert client.privacy.set_policy("acme", {"dedicated": True, "retain_days": 3})
        admin.privacy.set_policy("acme", {})


def test_a_policy_is_tried_on_a_text(client: Client) -> None:
    text = f"to {EMAIL}, order ORD-12345678"
    policy = {"kinds": ["email"], "patterns": {"order": "ORD-[0-9]{8}"}}
    found, other = client.privacy.redact([text, "<EMAIL_1>"], policy)
    assert found["text"] == "to <EMAIL_2>, order <ORDER_1>"
    assert [one["kind"] for one in found["entities"]] == ["email", "order"]
    assert [text[one["start"] : one["end"]] for one in found["entities"]] == [
        EMAIL, "ORD-12345678",
    ]  # fmt: skip
    assert other == {"index": 1, "text": "<EMAIL_1>", "entities": []}
    for body in ({}, {"text": "a", "texts": ["b"]}, {"texts": []}):
        with pytest.raises(ApiError):
            client._http.post("/v1/redact", body)


def test_no_act_on_record_says_what_is_looked_for(house: House, client: Client) -> None:
    secret = "Blue Heron"
    client.privacy.set_policy(
        "acme", {"redaction": {"action": "hide", "words": {"project": [secret]}}}
    )
    acts = client.tenants.audit("acme")
    client.privacy.set_policy("acme", {})
    assert "tenant.change" in [one["act"] for one in acts]
    assert secret not in str(acts)


def test_the_command_line(house: House, tmp_path: Path) -> None:
    data = house.server.data
    assert "off" in cli(data, "privacy", "policy", "acme")
    words = tmp_path / "words.txt"
    words.write_text("Blue Heron\nRed Fox\n")
    shown = cli(
        data, "privacy", "policy", "acme", "--redaction", "hide", "--kind", "email",
        "--pattern", "order=ORD-[0-9]{8}", "--words", f"project={words}", "--withdraw",
    )  # fmt: skip
    for told in ("hide", "email", "order", "project (2)"):
        assert told in shown
    assert "ORD-" not in shown
    assert "Heron" not in shown
    shown = cli(data, "privacy", "policy", "acme", "--kind", "all", "--pattern", "order=")
    assert "project (2)" in shown
    assert "order" not in shown
    house.server.wait_until(lambda: "x-openmaas-redacted" in say(house, EMAIL).headers, 5)
    printed = cli(
        data, "privacy", "redact", f"of red fox, to {EMAIL}",
        OPENMAAS_URL=house.server.url, OPENMAAS_API_KEY=house.keys["acme"],
    )  # fmt: skip
    assert printed.strip() == "of <PROJECT_1>, to <EMAIL_1>"
    with Client(house.server.url, house.keys["acme"]) as client:
        (key,) = client.tenants.keys("acme")
    of_key = ("privacy", "policy", "acme", "--key", key["id"])
    assert "tenant's policy" in cli(data, *of_key)
    assert "block" in cli(data, *of_key, "--redaction", "block")
    house.server.wait_until(lambda: say(house, EMAIL).status_code == 400, 5)
    assert "tenant's policy" in cli(data, *of_key, "--redaction", "inherit")
    cli(data, "privacy", "policy", "acme", "--redaction", "off", "--words", "project=")

"""T6: a key that is revoked, replaced, or whose tenant or project is closed, is refused within a
second, whoever does it and however the caller is connected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.conftest import deploy_echo
from tests.processes import ServerProcess, cli, serving

SECONDS = 1.0  # the promise itself
CHAT = {"model": "echo", "max_tokens": 2, "messages": [{"role": "user", "content": "a b"}]}
# So long that it still runs when the key goes: nobody reads it meanwhile.
LONG = CHAT | {"max_tokens": 2000, "ignore_eos": True, "stream": True}
# What a key of scopes inference and manage may ask.
ASKED: list[tuple[str, str, Any]] = [
    ("GET", "/v1/models", None),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", CHAT | {"stream": True}),
    ("GET", "/v2/models/echo/stats", None),
    ("GET", "/v1/quota", None),
    ("GET", "/v1/tenants/acme/usage", None),
]


class Key(NamedTuple):
    id: str
    secret: str
    project: str


class House(NamedTuple):
    server: ServerProcess
    database_url: str

    def post(self, path: str, body: Any) -> Any:
        answer = self.server.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def delete(self, path: str) -> None:
        assert self.server.client.delete(path).status_code == 200

    def key(self, project: str) -> Key:
        """Of a new project."""
        self.post("/v1/tenants/acme/projects", {"id": project})
        new = {"name": "k", "project": project, "scopes": ["inference", "manage"]}
        made = self.post("/v1/tenants/acme/keys", new)
        return Key(made["key"]["id"], made["secret"], project)


@pytest.fixture
def house(data: Path, database_url: str | None) -> Iterator[House]:
    """Tenant acme and a chat model."""
    deploy_echo(data, database_url=database_url)
    with serving(data, OPENMAAS_DATABASE_URL=database_url or "") as server:
        found = House(server, database_url or "")
        found.post("/v1/tenants", {"id": "acme"})
        yield found


def by_the_api(house: House, key: Key) -> None:
    house.delete(f"/v1/tenants/acme/keys/{key.id}")


def by_rotation(house: House, key: Key) -> None:
    house.post(f"/v1/tenants/acme/keys/{key.id}/rotate", {"overlap": 0})


def by_a_command(house: House, key: Key) -> None:
    cli(house.server.data, "keys", "revoke", key.id, OPENMAAS_DATABASE_URL=house.database_url)


def by_closing_its_project(house: House, key: Key) -> None:
    house.delete(f"/v1/tenants/acme/projects/{key.project}")


def by_closing_its_tenant(house: House, key: Key) -> None:
    cli(house.server.data, "tenants", "close", "acme", OPENMAAS_DATABASE_URL=house.database_url)


WAYS: list[Callable[[House, Key], None]] = [
    by_the_api, by_rotation, by_a_command, by_closing_its_project, by_closing_its_tenant
]  # fmt: skip


def test_refused_within_a_second_everywhere(house: House) -> None:
    for way in WAYS:
        key = house.key(way.__name__.replace("_", "-"))
        with (
            asking(house, key, max_connections=1) as kept,
            asking(house, key, max_keepalive_connections=0) as new,
        ):
            for asked in ASKED:
                assert status(kept, asked) == status(new, asked) == 200, (way, asked)
            port = local_port(kept)
            with kept.stream("POST", ASKED[2][1], json=LONG) as running:
                way(house, key)
                revoked = time.monotonic()
                # What had begun is finished: it was reserved, and it is billed.
                assert list(running.iter_lines())[-2] == "data: [DONE]"
            for asked in ASKED:
                for client in (kept, new):
                    until_refused(client, asked, revoked)
            assert {status(kept, asked) for asked in ASKED} == {401}  # and stays so
            assert local_port(kept) == port  # it was one connection, from before to after


def asking(house: House, key: Key, **limits: int) -> httpx.Client:
    return httpx.Client(
        base_url=house.server.url,
        headers={"Authorization": f"Bearer {key.secret}"},
        limits=httpx.Limits(**limits),
        timeout=30,
    )


def status(client: httpx.Client, asked: tuple[str, str, Any]) -> int:
    method, path, body = asked
    return client.request(method, path, json=body).status_code


def until_refused(client: httpx.Client, asked: tuple[str, str, Any], revoked: float) -> None:
    """Asks again and again: nothing that is sent a second after is answered."""
    while True:
        sent = time.monotonic()
        if status(client, asked) == 401:
            return
        assert sent - revoked <= SECONDS


def local_port(client: httpx.Client) -> int:
    """This end of the connection that a request goes out on."""
    stream = client.get("/v2/health/live").extensions["network_stream"]
    return int(stream.get_extra_info("client_addr")[1])

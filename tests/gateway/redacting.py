"""A server whose tenants have redaction policies, and models that note what they are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from tests.conftest import deploy_echo
from tests.processes import ServerProcess
from tests.stores import ME, opened

from openmaas.redaction.policy import RedactionPolicy
from openmaas.tenancy.keys import NewKey
from openmaas.tenancy.privacy import PrivacyPolicy

EMAIL, PHONE, IBAN = "anna.schmidt@example.org", "+49 30 901820", "DE89 3704 0044 0532 0130 00"
SECRETS = (EMAIL, PHONE, IBAN)
LETTER = f"Write to {EMAIL} or call {PHONE}; the account is {IBAN}."
SCOPES = ("inference", "train", "manage")


class House(NamedTuple):
    """A server, and a key of each tenant."""

    server: ServerProcess
    keys: dict[str, str]
    log: Path

    def post(self, path: str, body: Any, tenant: str = "hide", **headers: str) -> httpx.Response:
        return httpx.post(
            self.server.url + path,
            json=body,
            headers={"Authorization": f"Bearer {self.keys[tenant]}"} | headers,
            timeout=120,
        )

    def answer(self, path: str, body: Any, tenant: str = "hide", **headers: str) -> Any:
        response = self.post(path, body, tenant, **headers)
        assert response.status_code == 200, response.text
        return response.json()

    def seen(self) -> str:
        """All that the echo runtime was given since the last look, then forgotten."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return "\n".join(json.loads(line) for line in lines)


def furnished(data: Path, log: Path, policies: dict[str, RedactionPolicy]) -> dict[str, str]:
    """Deploys echo models and makes a tenant for each policy; a key of each."""
    deploy_echo(data, prompt_log=str(log))
    deploy_echo(data, "echo-embed", task="embed", prompt_log=str(log))
    deploy_echo(data, "echo-predict", task="predict", prompt_log=str(log))
    keys = {}
    with opened(data) as store:
        for tenant, policy in policies.items():
            store.tenants.create(tenant, ME)
            store.tenants.change(tenant, ME, privacy=PrivacyPolicy(redaction=policy))
            _, keys[tenant] = store.keys.create(
                NewKey(name=tenant, tenant=tenant, scopes=SCOPES), ME
            )
    return keys

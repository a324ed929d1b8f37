"""Deployments and aliases by API, as a tenant's manager and an admin see them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import deploy_echo
from tests.processes import ServerProcess, cli, serving
from tests.stores import deploy


@pytest.fixture(scope="module")
def house(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Tenant acme, which has a model ``own``, beside the public ``digits``."""
    data = tmp_path_factory.mktemp("deployments") / "data"
    shutil.copytree(digits_only, data)
    cli(data, "tenants", "create", "acme")
    deploy(data, "digits")
    deploy_echo(data, "own", tenant="acme")
    with serving(data) as server:
        yield server


@pytest.fixture(scope="module")
def manager(house: ServerProcess) -> Iterator[httpx.Client]:
    body = {"name": "m", "scopes": ["inference", "manage"]}
    secret = house.client.post("/v1/tenants/acme/keys", json=body).json()["secret"]
    with httpx.Client(
        base_url=house.url, headers={"Authorization": f"Bearer {secret}"}, timeout=60
    ) as client:
        yield client


def test_a_manager_sees_what_is_its_own_and_an_admin_all(
    house: ServerProcess, manager: httpx.Client
) -> None:
    own = manager.get("/v1/deployments").json()
    assert [one["model"] for one in own["data"]] == ["own"]
    everything = house.client.get("/v1/deployments").json()
    assert {one["model"] for one in everything["data"]} == {"digits", "own"}
    assert everything["memory"]["taken"] > own["memory"]["taken"] > 0
    (one,) = own["data"]
    assert one["state"] == "ready"
    assert one["workers"][0]["memory"] == pytest.approx(one["memory"], rel=0.2)
    assert one["load_seconds"] > 0
    text = house.client.get("/metrics").text
    assert 'openmaas_model_replicas{model="digits"} 1.0' in text
    assert 'openmaas_model_memory_bytes{model="acme/own"}' in text


@pytest.mark.parametrize(
    "more",
    [
        {"runtime": "echo"},
        {"options": {"token_log": "/tmp/canary"}},
        {"replicas": {"min": 1, "max": 1}},
        {"replicas": {"min": 0, "max": 2}},
    ],
)
def test_what_costs_other_tenants_takes_an_admin(
    manager: httpx.Client, more: dict[str, Any]
) -> None:
    answer = manager.post("/v1/deployments", json={"model": "own", **more})
    assert answer.status_code == 403
    assert not Path("/tmp/canary").exists()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"targets": []}, "targets"),
        ({"targets": [{"version": 0}]}, "targets[0].version"),
        ({"targets": [{"version": 1, "weight": 101}]}, "targets[0].weight"),
        ({"targets": [{"version": 1, "weight": 99}]}, "targets"),
        ({"targets": [{"version": 1}], "shadow": {"version": 1}}, "shadow"),
        ({"targets": [{"version": 1}], "shadow": {"version": 2, "share": 0}}, "shadow.share"),
        ({"targets": [{"version": 1}], "bounds": {"errors": 2}}, "bounds.errors"),
        ({"targets": [{"version": 1}], "wait": 1e9}, "wait"),
        ({"targets": [{"version": 1}], "colour": "blue"}, "colour"),
    ],
)
def test_bad_aliases_are_refused_by_name(
    house: ServerProcess, body: dict[str, Any], param: str
) -> None:
    answer = house.client.put("/v1/models/digits/aliases/live", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("alias", ["1", "Live", "a b", "-x", "x" * 40])
def test_aliases_have_plain_names(house: ServerProcess, alias: str) -> None:
    body = {"targets": [{"version": 1}]}
    answer = house.client.put(f"/v1/models/digits/aliases/{alias}", json=body)
    assert answer.status_code == 400


def test_versions_that_are_no_numbers(house: ServerProcess) -> None:
    for version in ("x", "0", "-1", "1e3", "99999999999999999999"):
        assert house.client.delete(f"/v1/deployments/digits?version={version}").status_code == 400
        path = f"/v1/models/digits/versions/{version}"
        assert house.client.delete(path).status_code == 400


def test_a_version_that_no_alias_leads_to_answers_by_its_number(
    house: ServerProcess, manager: httpx.Client
) -> None:
    """Also where the model has no alias at all."""
    from tests.cli.test_models import DIGITS

    cli(house.data, "models", "push", "quiet", str(DIGITS), "--tenant", "acme")
    made = manager.post("/v1/deployments", json={"model": "quiet", "live": False})
    assert made.status_code == 200, made.text
    row = {"instances": [[0.0] * 64]}
    assert manager.post("/v1/models/quiet:predict", json=row).status_code == 404
    answer = manager.post("/v1/models/quiet@1:predict", json=row)
    assert answer.status_code == 200
    assert answer.headers["x-openmaas-model"] == "quiet@1"
    assert house.client.post("/v1/models/quiet@1:predict", json=row).status_code == 404  # not its
    assert manager.delete("/v1/deployments/quiet?version=1").status_code == 200
    assert manager.delete("/v1/models/quiet/versions/1").status_code == 200
    assert manager.get("/v1/models/quiet/aliases").status_code == 404

"""Models and deployments as rows, and the audit log of what is done to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openmaas.audit import By, acts
from openmaas.database import Database, open_database
from openmaas.errors import Conflict, ModelNotFound, QuotaExhausted
from openmaas.registry.deployments import Deployments
from openmaas.registry.records import Records, Version

ME = By("a test")


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    found = open_database(tmp_path, database_url)
    yield found
    found.close()


def version(digest: str = "a", tenant: str = "acme", size: int = 10) -> Version:
    return Version("m", 0, digest, "predict", "openvino-ir", "file:m", "", size, 0, tenant)


def test_everything_that_is_done_to_a_model_is_told(database: Database) -> None:
    records = Records(database)
    first = records.add(version("a"), ME)
    second = records.add(version("b"), ME)
    assert (first.version, second.version) == (1, 2)
    deployments = Deployments(database)
    deployments.deploy(second, ME, "openvino_tensors", "by its format", {"threads": 1})
    with pytest.raises(Conflict):
        records.remove("m", ME, tenant="acme")
    deployments.undeploy("m", ME, "acme")
    with pytest.raises(ModelNotFound):
        deployments.undeploy("m", ME, "acme")
    assert records.remove("m", ME, 1, "acme") == ["a"]
    told = acts(database, tenant="acme")
    assert [(one.act, one.object) for one in reversed(told)] == [
        ("version.add", "m:1"),
        ("version.add", "m:2"),
        ("model.deploy", "m"),
        ("model.undeploy", "m"),
        ("version.remove", "m:1"),
    ]
    assert {one.actor for one in told} == {"a test"}
    assert told[2].detail["options"] == {"threads": 1}
    assert acts(database, tenant="other") == []


def test_the_same_bytes_again_are_no_new_version(database: Database) -> None:
    records = Records(database)
    records.add(version("a"), ME)
    assert records.add(version("a"), ME).version == 1
    assert len(acts(database, tenant="acme")) == 1


def test_a_tenant_stores_no_more_than_its_quota(database: Database) -> None:
    records = Records(database)
    records.add(version("a", size=60), ME, most_bytes=100)
    with pytest.raises(QuotaExhausted):
        records.add(version("b", size=41), ME, most_bytes=100)
    records.add(version("b", size=40), ME, most_bytes=100)
    assert records.stored_bytes("acme") == 100

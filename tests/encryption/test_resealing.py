"""A tenant's keys are replaced while everything is in use; an older release's files are sealed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from openmaas.app import Store
from openmaas.audit import By, acts
from openmaas.batches.files import Files
from openmaas.encryption.records import MAGIC
from openmaas.encryption.sealed import open_sealed, sealed_by
from openmaas.errors import Erased, NotFound
from openmaas.privacy import resealing
from openmaas.privacy.resealing import Resealer
from openmaas.registry.manifest import Description
from openmaas.registry.records import Version
from openmaas.training.publishing import Card, Publisher
from tests.stores import opened
from tests.training.reading import TENANT, Desk

ME = By("a test")
OWNER = (TENANT, "default", "key_0")


class Place(NamedTuple):
    store: Store
    desk: Desk
    files: Files
    publisher: Publisher
    resealer: Resealer

    @property
    def folder(self) -> Path:
        return self.desk.folder

    def rotate(self) -> None:
        keys, tenants = self.store.keyring, self.store.tenants
        resealing.rotate(self.store.database, keys, tenants, TENANT, ME, rewrite=True)

    def reseal(self) -> bool:
        return all(
            self.resealer.reseal(tenant, keys)
            for tenant, keys in self.store.keyring.to_rewrite().items()
        )

    def sealed(self) -> dict[str, str | None]:
        """By file, the key that sealed it."""
        return {
            path.relative_to(self.folder).as_posix(): sealed_by(path)
            for place in resealing.SEALED
            for path in (self.folder / place).rglob("*")
            if path.is_file()
        }


@pytest.fixture
def at(tmp_path: Path, database_url: str | None) -> Iterator[Place]:
    data = tmp_path / "data"
    data.mkdir()
    with opened(data, database_url) as store:
        desk = Desk(data, store.database, keyring=store.keyring)
        files = Files(store.database, data / "files", 1 << 20, 1 << 20, store.keyring)
        publisher = Publisher(
            store.database, store.records, store.artifacts, store.tenants, store.deployments,
            lambda version, by: pytest.fail("nothing is deployed"), 1.0, store.keyring,
        )  # fmt: skip
        resealer = Resealer(
            store.database, store.keyring, data, store.records, store.artifacts, desk.uploads,
            desk.datasets, publisher,
        )  # fmt: skip
        yield Place(store, desk, files, publisher, resealer)
        store.memory.sweep()


def version(at: Place, tenant: str, model: str, content: bytes, *, owned_by: str = TENANT) -> str:
    """Registers an artifact; its digest."""
    artifacts = at.store.artifacts
    with artifacts.scratch(tenant) as scratch:
        (scratch / "model.bin").write_bytes(content)
        said = Description(format="openvino-ir", task="predict", architecture="x", labels=["Ada"])
        digest, manifest = artifacts.add(
            scratch, said, source="x", source_sha256="0" * 64, tenant=tenant
        )
    new = Version(
        model, 0, digest, "predict", "openvino-ir", "x", "", manifest.size, 0, owned_by
    )  # fmt: skip
    at.publisher._write(
        at.store.records.add(new, ME), Card(made_by="x", confusion={"labels": ["Ada"]}), None
    )
    return digest


async def test_all_is_sealed_anew_while_it_is_read(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = at.store
    whole = at.desk.upload(b"whole" * 10_000)
    going = at.desk.uploads.create("x", 10, None, OWNER, ME)
    at.desk.uploads.append(going.id, TENANT, 0, b"half ")
    dataset = await at.desk.read(b"name,label\nAda,x\nAlan,y\n")
    assert dataset.description is not None
    arriving = at.files.begin(TENANT, 100)
    arriving.write(b"line\n" * 50_000)
    file = at.files.keep(arriving, "in.jsonl", 3600, OWNER, ME)
    own = version(at, TENANT, "own", b"own" * 1000)
    older = version(at, "", "older", b"older" * 1000)  # as a release left it that sealed nothing
    plain = store.artifacts.root / older.removeprefix("sha256:")
    os.utime(plain, (0, 0))  # long ago

    before = at.sealed()
    old = {key for key in before.values() if key is not None}
    data_set = f"datasets/{dataset.id}/rows.parquet"
    with (
        at.files.open(file.id) as reader,
        open_sealed(at.folder / data_set, store.keyring, data_set) as rows,
    ):
        assert reader.read(100) == b"line\n" * 20
        table = rows.read(10)
        at.rotate()
        assert not at.reseal()  # the upload that is not finished keeps its key
        assert reader.read() == b"line\n" * 49_980
        table += rows.read()
    after = at.sealed()
    unfinished = f"uploads/{going.id}"
    assert {name for name, key in after.items() if key in old} == {unfinished}
    assert all(after.values())
    assert not plain.exists()
    assert {f"artifacts/tenants/{TENANT}/{one.removeprefix('sha256:')}/model.bin"
            for one in (own, older)} <= after.keys()  # fmt: skip

    assert at.desk.content(whole.id) == b"whole" * 10_000
    with open_sealed(at.folder / data_set, store.keyring, data_set) as rows:
        assert rows.read() == table
    assert at.desk.datasets.get(dataset.id, TENANT).description == dataset.description
    assert at.desk.datasets.preview(dataset.id, TENANT).rows[0][0] == "Ada"
    with store.artifacts.open_file(older, "model.bin", TENANT) as opened_file:
        assert opened_file.read() == b"older" * 1000
    for model in ("own", "older"):
        (told,) = at.publisher.versions(TENANT, model)
        assert told.card is not None
        assert told.card["confusion"] == {"labels": ["Ada"]}

    monkeypatch.setattr(resealing, "GRACE_SECONDS", -10.0)
    at.desk.uploads.append(going.id, TENANT, 5, b"whole")
    assert at.reseal()
    for key in old:
        with pytest.raises(Erased):
            store.keyring.by_id(key)
    assert store.keyring.to_rewrite() == {}
    assert at.desk.content(going.id) == b"half whole"
    assert at.desk.datasets.get(dataset.id, TENANT).description == dataset.description
    assert all((at.folder / name).read_bytes().startswith(MAGIC) for name in at.sealed())
    assert "key.data.rotate" in [act.act for act in acts(store.database, tenant=TENANT)]


async def test_a_key_that_somebody_may_still_use_stays(at: Place) -> None:
    at.desk.upload(b"x" * 100)
    (old,) = {key for key in at.sealed().values() if key is not None}
    at.rotate()
    assert at.reseal()
    assert at.store.keyring.by_id(old).id == old  # for a minute


def test_no_such_tenant(at: Place) -> None:
    with pytest.raises(NotFound):
        resealing.rotate(
            at.store.database, at.store.keyring, at.store.tenants, "nobody", ME, rewrite=False
        )


async def test_a_data_sets_key_goes_with_it(at: Place) -> None:
    made = await at.desk.read(b"name,label\nAda,x\nAlan,y\n")
    path = at.folder / "datasets" / made.id / "rows.parquet"
    key, copied = sealed_by(path), path.read_bytes()
    at.desk.datasets.remove(made.id, TENANT, ME)
    assert key is not None
    with pytest.raises(Erased):
        at.store.keyring.by_id(key)
    path.parent.mkdir()
    path.write_bytes(copied)  # a copy that somebody made before
    with pytest.raises(Erased):
        open_sealed(path, at.store.keyring, f"datasets/{made.id}/rows.parquet")


async def test_the_same_bytes_of_two_tenants_are_two_artifacts(at: Place) -> None:
    at.store.tenants.create("umbrella", ME)
    mine = version(at, TENANT, "m", b"same" * 100)
    theirs = version(at, "umbrella", "m", b"same" * 100, owned_by="umbrella")
    assert mine == theirs
    private = at.store.artifacts.private
    assert private is not None
    assert list(private.all()) == [(TENANT, mine), ("umbrella", mine)]
    at.store.artifacts.remove(mine, TENANT)
    assert not private.has(mine, TENANT)
    with at.store.artifacts.view(mine, "umbrella") as root:
        assert root.is_relative_to(at.store.memory.folder)
        assert (root / mine.removeprefix("sha256:") / "model.bin").read_bytes() == b"same" * 100
    assert not root.exists()
    assert msgspec.to_builtins(at.store.artifacts.manifest(mine, "umbrella"))["labels"] == ["Ada"]

"""A data folder of an older release is served on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from openmaas import database as databases
from openmaas.database import connect, open_database
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.master import MasterFile
from openmaas.encryption.memory import Memory
from openmaas.registry.deployments import Deployments, Target
from openmaas.schema import metadata
from openmaas.training.data import PREVIEW
from openmaas.training.datasets import Datasets
from openmaas.training.uploads import Uploads


def at(revision: str, folder: Path, url: str | None) -> Any:
    """A database as a release left it."""
    from alembic import command
    from alembic.config import Config

    database = connect(folder, url)
    config = Config()
    place = Path(databases.__file__).parent / "migrations"
    config.set_main_option("script_location", str(place))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return database


def test_what_was_deployed_stays_deployed(tmp_path: Path, database_url: str | None) -> None:
    old = at("0003", tmp_path, database_url)
    values = {
        "tenant": "", "model": "m", "version": 3, "runtime": "openvino_tensors", "reason": "r",
        "options": json.dumps({"threads": 2}), "generation": 7, "state": "ready", "detail": "",
        "restarts": 1,
    }  # fmt: skip
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    with old.write() as connection:
        connection.execute(sa.text(f"INSERT INTO deployments ({names}) VALUES ({marks})"), values)
    old.close()
    new = open_database(tmp_path, database_url)
    (one,), (alias,) = Deployments(new).everything()
    assert (one.name, one.options, one.generation) == (("", "m", 3), {"threads": 2}, 7)
    assert (one.min_replicas, one.max_replicas, one.workers) == (0, 1, [])
    assert (alias.alias, alias.targets, alias.pending) == ("live", [Target(3)], None)
    new.close()


def test_the_tables_are_those_of_the_schema(tmp_path: Path, database_url: str | None) -> None:
    database = open_database(tmp_path, database_url)
    with database.read() as connection:
        there = sa.inspect(connection)
        for table in metadata.sorted_tables:
            real = {column["name"]: column["nullable"] for column in there.get_columns(table.name)}
            assert real == {column.name: column.nullable for column in table.columns}, table.name
            keys = there.get_pk_constraint(table.name)["constrained_columns"]
            assert keys == [column.name for column in table.primary_key.columns], table.name
    database.close()


def test_what_was_not_sealed_is_read(tmp_path: Path, database_url: str | None) -> None:
    """A data set of a release that sealed nothing: its row, and its files."""
    old = at("0005", tmp_path, database_url)
    about = {
        "kind": "table", "format": "csv", "rows": 1, "splits": {"train": 1}, "bytes": 3,
        "fingerprint": "0" * 64, "columns": [{"name": "a", "kind": "text", "dtype": "string"}],
    }  # fmt: skip
    values = {
        "id": "ds_1", "tenant": "default", "project": "default", "key": "k", "name": "n",
        "format": "csv", "state": "ready", "upload": "up_1", "options": "{}",
        "description": json.dumps(about), "bytes": 3, "created": 1, "finished": 1,
    }  # fmt: skip
    names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    with old.write() as connection:
        connection.execute(sa.text(f"INSERT INTO datasets ({names}) VALUES ({marks})"), values)
    old.close()
    folder = tmp_path / "datasets" / "ds_1"
    folder.mkdir(parents=True)
    (folder / PREVIEW).write_text('{"columns": ["a"], "rows": [["Ada"]]}')
    new = open_database(tmp_path, database_url)
    keyring = Keyring(new, MasterFile(tmp_path / "master.key"))
    uploads = Uploads(new, tmp_path / "uploads", 1, keyring)
    datasets = Datasets(new, tmp_path / "datasets", uploads, keyring)
    found = datasets.get("ds_1", "default").description
    assert found is not None
    assert found.columns[0].name == "a"
    assert datasets.preview("ds_1", "default").rows == [["Ada"]]
    memory = Memory(tmp_path / "memory", any_disk=True)
    datasets.unseal("ds_1", memory.make("x") / "view", memory)
    assert memory.path("x", "view", PREVIEW).is_file()
    new.close()


@pytest.mark.parametrize("revision", ["0001", "0002", "0004", "0005"])
def test_every_release_can_be_left(tmp_path: Path, revision: str) -> None:
    at(revision, tmp_path, None).close()
    database = open_database(tmp_path)
    assert Deployments(database).all() == []
    database.close()

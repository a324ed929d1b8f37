"""A data folder of an older release is served on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from openmaas import database as databases
from openmaas.database import connect, open_database
from openmaas.registry.deployments import Deployments, Target
from openmaas.schema import metadata


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


@pytest.mark.parametrize("revision", ["0001", "0002", "0004"])
def test_every_release_can_be_left(tmp_path: Path, revision: str) -> None:
    at(revision, tmp_path, None).close()
    database = open_database(tmp_path)
    assert Deployments(database).all() == []
    database.close()

"""The tables and the one engine of a data folder's database.

SQLite with a rollback journal and ``synchronous=FULL``: library versions before 3.51.3 can
corrupt a write-ahead log that several processes checkpoint, and commands write while the
server does.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from openmaas.errors import ConfigurationError

metadata = sa.MetaData()

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False, unique=True),  # SHA-256 of the whole secret, hex
    sa.Column("scope", sa.Text, nullable=False),  # inference | admin
    sa.Column("created", sa.Integer, nullable=False),  # Unix seconds, like every time here
    sa.Column("revoked", sa.Integer),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),  # 1, 2, 3 … within the model
    sa.Column("digest", sa.Text, nullable=False),  # of the artifact
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("licence", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),  # bytes on disk
    sa.Column("created", sa.Integer, nullable=False),
)

deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    # what is wanted
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("runtime", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),  # why this runtime
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),  # grows with each deploy
    # what the gateway last saw
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("gateway_pid", sa.Integer),
    sa.Column("worker_pid", sa.Integer),
    sa.Column("restarts", sa.Integer, nullable=False),
)


def open_database(folder: Path) -> sa.Engine:
    """The database of a data folder, made or migrated to this version's tables.

    Raises:
        ConfigurationError: it is of a newer version.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / "openmaas.db"
    engine = sa.create_engine(f"sqlite:///{file}", connect_args={"timeout": 10})
    sa.event.listen(engine, "connect", _pragmas)
    with engine.begin() as connection:
        if _revision(connection) != HEAD:
            _migrate(connection)
    file.chmod(0o600)
    return engine


HEAD = "0001"  # the newest file under migrations/versions


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def _migrate(connection: sa.Connection) -> None:
    # Imported only when there is something to do: every command opens the database.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise ConfigurationError(
            "the data folder is of a newer OpenMaaS; use that one, or another --data-dir"
        ) from None


def _pragmas(connection: object, _: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=DELETE")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()

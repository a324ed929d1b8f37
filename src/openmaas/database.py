"""The one engine of a database: SQLite in the data folder, or PostgreSQL by URL.

SQLite writes ahead (one flush to disk a commit, readers never wait) with ``synchronous=FULL``.
Library versions before 3.51.3 can corrupt a write-ahead log that several processes checkpoint,
and commands write while the server does: that is why SQLite comes with a package of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from pysqlite3 import dbapi2 as sqlite

from openmaas.errors import (
    ConfigurationError,
    OpenMaaSError,
    StorageFull,
    StorageUnavailable,
)

FILE = "openmaas.db"
HEAD = "0009"  # the newest file under migrations/versions
RETRY_SECONDS = 1.0
_BUSY_SECONDS = 10.0
_SCRUB_SECONDS = 5.0  # that readers have to come to their end
# What a dead server or a cut link must not hold longer; libpq's names and units.
_POSTGRES = {
    "connect_timeout": 2,
    "tcp_user_timeout": 5000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "application_name": "openmaas",
}


class Row(Protocol):
    """What pages of rows are told apart by."""

    @property
    def created(self) -> int: ...

    @property
    def id(self) -> str: ...


class Database:
    """Transactions. What fails because the database is away, or its disk full, is raised as
    ``StorageUnavailable`` and ``StorageFull``; a broken constraint as SQLAlchemy's own error."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name  # "sqlite" or "postgresql"
        self._reading = engine.execution_options(reads=True)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A view of one moment. It never waits for writers, nor they for it."""
        with translated(), self._reading.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """All or nothing; one at a time on SQLite, from its first statement on."""
        with translated(), self.engine.begin() as connection:
            yield connection

    def scrub(self) -> bool:
        """Has what was deleted leave SQLite's files: pages are zeroed as rows go, and the
        write-ahead log, which still has them, is emptied. Nothing on PostgreSQL, whose own VACUUM
        does that.

        Returns:
            Whether it could: false where somebody read for too long meanwhile.
        """
        if self.dialect != "sqlite":
            return True
        until = time.monotonic() + _SCRUB_SECONDS
        with translated(), contextlib.closing(self.engine.raw_connection()) as connection:
            while True:
                cursor = connection.cursor()
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                busy = cursor.fetchone()[0]  # type: ignore[index]
                cursor.close()
                if not busy or time.monotonic() > until:
                    return not busy
                time.sleep(0.05)

    def close(self) -> None:
        self.engine.dispose()


def page(
    query: sa.Select[Any], table: sa.Table, limit: int, last: Row | None, *, oldest: bool = False
) -> sa.Select[Any]:
    """The rows of a query that come after one, the newest first; of those made in the same second
    by their ids.

    Args:
        last: the last of the page before; None: from the beginning.
        oldest: the oldest first instead.
    """
    columns = (table.c.created, table.c.id)
    if last is not None:
        at, before = sa.tuple_(*columns), sa.tuple_(last.created, last.id)
        query = query.where(at > before if oldest else at < before)
    order = columns if oldest else [column.desc() for column in columns]
    return query.order_by(*order).limit(limit)


@contextmanager
def translated() -> Iterator[None]:
    """
    Raises:
        StorageFull, StorageUnavailable: in place of SQLAlchemy's errors of a database that is away.
    """
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError) as error:
        raise away(error) from error


def open_database(folder: Path, url: str | None = None) -> Database:
    """The database of a data folder, made or migrated to this version's tables.

    Args:
        url: of a PostgreSQL database (``postgresql://USER:PASSWORD@HOST/NAME``) instead.

    Raises:
        ConfigurationError: it is of a newer version, or the URL is no such URL.
    """
    database = connect(folder, url)
    with database.read() as connection:
        old = _revision(connection) != HEAD
    if old:
        with database.write() as connection:
            _migrate(connection)
    if url is None:
        (folder / FILE).chmod(0o600)
    return database


def connect(folder: Path, url: str | None = None) -> Database:
    """A database as it is, opened when it is first used.

    Raises:
        ConfigurationError: the URL is none of PostgreSQL.
    """
    return Database(_sqlite(folder) if url is None else _postgres(url))


def away(error: sa.exc.SQLAlchemyError) -> OpenMaaSError:
    """What a failed statement means to callers: the disk is full, or the database is away."""
    words = str(getattr(error, "orig", error))
    if "full" in words.lower() or getattr(getattr(error, "orig", 0), "sqlstate", "") == "53100":
        return StorageFull("the disk of the database is full", retry_after=RETRY_SECONDS)
    return StorageUnavailable("the database does not answer", retry_after=RETRY_SECONDS)


def _sqlite(folder: Path) -> sa.Engine:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = sa.create_engine(
        f"sqlite:///{folder / FILE}",
        module=sqlite,
        connect_args={"timeout": _BUSY_SECONDS},
        hide_parameters=True,  # errors are logged, and callers' words are not
    )
    sa.event.listen(engine, "connect", _pragmas)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _postgres(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername not in ("postgresql", "postgres"):
        raise ConfigurationError(
            "database_url is not of the form postgresql://USER:PASSWORD@HOST/NAME"
        )
    return sa.create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args=_POSTGRES,
        pool_pre_ping=True,
        hide_parameters=True,
    )


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

    if connection.dialect.name == "postgresql":  # two at once would make the tables twice
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7023114211)"))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise ConfigurationError(
            "the data folder is of a newer OpenMaaS; use that one, or another --data-dir"
        ) from None


def _begin(connection: sa.Connection) -> None:
    # A transaction that reads before it writes must not find that another wrote between.
    reads = connection.get_execution_options().get("reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _pragmas(connection: sqlite.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, tables' changes too
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")  # what is deleted is not left in the file
    cursor.execute("PRAGMA wal_autocheckpoint=4000")  # pages; most are written many times over
    cursor.close()

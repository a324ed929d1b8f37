"""A raw search of all that a data folder, its database and its folder in memory hold."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from openmaas.config import load
from openmaas.database import connect
from openmaas.encryption.memory import open_memory


def everywhere(data: Path, url: str | None = None) -> dict[str, bytes]:
    """Content by place: each file with its path; of PostgreSQL every column of every row."""
    found = {
        str(path.relative_to(data)): str(path).encode() + b"\0" + path.read_bytes()
        for path in data.rglob("*")
        if path.is_file()
    }
    memory = open_memory(load(None, {}, {"data_dir": str(data)})).folder
    for path in memory.rglob("*") if memory.is_dir() else ():
        if path.is_file():
            found[str(path)] = str(path).encode() + b"\0" + path.read_bytes()
    if url is not None:
        with closing(connect(data, url)) as database, database.read() as connection:
            for table in sa.inspect(connection).get_table_names():
                rows = connection.scalars(sa.text(f'SELECT t::text FROM "{table}" t'))
                found[f"table {table}"] = b"\n".join(str(row).encode() for row in rows)
    return found


def places(data: Path, words: str | bytes, url: str | None = None) -> list[str]:
    """Where something is found."""
    wanted = words.encode() if isinstance(words, str) else words
    return sorted(place for place, held in everywhere(data, url).items() if wanted in held)

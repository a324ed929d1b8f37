"""Everything that is held of a tenant, unsealed, as a tar."""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import msgspec
import sqlalchemy as sa

from openmaas import __version__
from openmaas.database import Database
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.sealed import open_sealed, pieces
from openmaas.encryption.values import unseal_json
from openmaas.errors import Erased, ModelNotFound, NotFound
from openmaas.privacy.holdings import HOLDINGS, Holding
from openmaas.privacy.retained import RetainedExchanges
from openmaas.privacy.rows import CHUNK_BYTES, chunks
from openmaas.privacy.tar import Tar
from openmaas.registry.artifacts import ArtifactStore
from openmaas.schema import batches, cards, datasets, files, jobs, sessions, tenants, uploads
from openmaas.schema import versions as versions_table

README = """Everything that OpenMaaS {version} held of tenant {tenant} at {moment} (UTC).

rows/KIND.jsonl          a line of JSON for each row of the database, and rows/KIND-2.jsonl …
                         where there are many. Times are Unix seconds; those of usage, of events
                         of jobs and of retained exchanges are milliseconds. Money is in units of
                         10^-9. What is there of each kind, and why:
{kinds}
models/MODEL/VERSION/    the files of a model's version, its card and its learning curve are in
                         rows/cards.jsonl and curve.png
datasets/ID/             a data set as it is trained on
uploads/ID, files/ID     files as they were sent, or as batches wrote them; rows/ tells their names
batches/ID.jsonl         answers of a batch that is not finished
jobs/ID/, sessions/ID/   checkpoints of what is not finished
retained/DAY.jsonl       requests and answers that were kept: rows/retained-exchanges.jsonl tells
                         when and of which model. Bodies that are no text are in base64
SHA256SUMS               digests of all entries: sha256sum --check SHA256SUMS

Not in here: secrets of keys, which are not kept; their hashes; the keys that all this was sealed
with. The parts were read one after the other while the server went on: what came or went meanwhile
may be in one and not in another.
"""


class Exports:
    """All methods block; what they return is read in threads.

    Args:
        folder: the data folder.
    """

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        artifacts: ArtifactStore,
        folder: Path,
        retained: RetainedExchanges,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._artifacts = artifacts
        self._folder = folder
        self._retained = retained

    def check(self, tenant: str) -> None:
        """
        Raises:
            NotFound: there is no such tenant.
        """
        with self._database.read() as connection:
            if connection.execute(sa.select(tenants.c.id).where(tenants.c.id == tenant)).first():
                return
        raise NotFound(f"no tenant {tenant[:64]!r}")

    def tar(self, tenant: str) -> Iterator[bytes]:
        """Pieces of about a megabyte at the most.

        Raises:
            StorageUnavailable: something changed while it was read.
        """
        now = int(time.time())
        tar = Tar(f"openmaas-{tenant}", now)
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
        kinds = "\n".join(f"  {file_of(one)}.jsonl: {one.purpose}" for one in HOLDINGS)
        readme = README.format(version=__version__, tenant=tenant, moment=moment, kinds=kinds)
        yield from tar.entry("README.txt", readme.encode())
        for holding in HOLDINGS:
            found = chunks(self._database, holding, tenant, self._opened)
            for number, chunk in enumerate(found, 1):
                more = "" if number == 1 else f"-{number}"
                yield from tar.entry(f"rows/{file_of(holding)}{more}.jsonl", chunk)
        yield from self._models(tar, tenant)
        yield from self._stored(tar, tenant)
        yield from self._work(tar, tenant)
        yield from self._exchanges(tar, tenant)
        yield from tar.end()

    # --- what is in files -------------------------------------------------------------------------

    def _models(self, tar: Tar, tenant: str) -> Iterator[bytes]:
        of = versions_table.c
        query = sa.select(of.model, of.version, of.digest).where(of.tenant == tenant)
        for row in self._all(query.order_by(of.model, of.version)):
            place = f"models/{quote(row.model, safe='')}/{row.version}"
            # It may be removed meanwhile.
            with contextlib.suppress(ModelNotFound, FileNotFoundError, Erased):
                for file in self._artifacts.manifest(row.digest, tenant).files:
                    opened = self._artifacts.open_file(row.digest, file.path, tenant)
                    yield from _entry(tar, f"{place}/{file.path}", opened, file.size)
        curves = sa.select(cards.c.model, cards.c.version).where(
            cards.c.tenant == tenant, cards.c.curve.is_not(None)
        )
        for row in self._all(curves):
            which = (cards.c.tenant == tenant) & (cards.c.model == row.model)
            query = sa.select(cards.c.curve).where(which, cards.c.version == row.version)
            for one in self._all(query):
                place = f"models/{quote(row.model, safe='')}/{row.version}/curve.png"
                yield from tar.entry(place, bytes(one.curve))

    def _stored(self, tar: Tar, tenant: str) -> Iterator[bytes]:
        for place, table, size in (
            ("uploads", uploads, uploads.c.received),
            ("files", files, files.c.bytes),
        ):
            query = sa.select(table.c.id, size.label("held")).where(table.c.tenant == tenant)
            for row in self._all(query):
                opened = self._file(f"{place}/{row.id}", size=row.held)
                yield from _entry(tar, f"{place}/{row.id}", opened, row.held)
        for row in self._all(sa.select(datasets.c.id).where(datasets.c.tenant == tenant)):
            yield from self._tree(tar, f"datasets/{row.id}")

    def _work(self, tar: Tar, tenant: str) -> Iterator[bytes]:
        for row in self._all(sa.select(batches.c.id).where(batches.c.tenant == tenant)):
            name = f"batches/{row.id}.jsonl"
            yield from _entry(tar, name, self._file(name, growing=True))
        for place, table in (("jobs", jobs), ("sessions", sessions)):
            for row in self._all(sa.select(table.c.id).where(table.c.tenant == tenant)):
                yield from self._tree(tar, f"{place}/{row.id}")

    def _exchanges(self, tar: Tar, tenant: str) -> Iterator[bytes]:
        for day in self._retained.days(tenant):
            held, number, after = bytearray(), 0, ""
            while page := self._retained.list(tenant, day=day.day, after=after, limit=100):
                after = page[-1].request
                for one in page:
                    with contextlib.suppress(NotFound):  # it was removed meanwhile
                        _, bodies = self._retained.get(tenant, one.request)
                        line = {
                            "request": one.request,
                            "sent": told(bodies.sent),
                            "answered": told(bodies.answered),
                        }
                        held += msgspec.json.encode(line) + b"\n"
                    if len(held) >= CHUNK_BYTES:
                        number += 1
                        yield from tar.entry(_chunk(day.day, number), bytes(held))
                        held.clear()
            if held:
                yield from tar.entry(_chunk(day.day, number + 1), bytes(held))

    def _tree(self, tar: Tar, place: str) -> Iterator[bytes]:
        root = self._folder / place
        for path in sorted(root.rglob("*")) if root.is_dir() else ():
            if path.is_file() and not path.is_symlink():
                name = path.relative_to(self._folder).as_posix()
                yield from _entry(tar, name, self._file(name))

    def _file(
        self, name: str, *, size: int | None = None, growing: bool = False
    ) -> BinaryIO | None:
        """None: it went meanwhile."""
        try:
            return open_sealed(self._folder / name, self._keyring, name, size=size, growing=growing)
        except (FileNotFoundError, Erased):
            return None

    # --- rows --------------------------------------------------------------------------------

    def _opened(self, table: sa.Table, row: dict[str, Any]) -> dict[str, Any]:
        for name, value in row.items():
            with contextlib.suppress(Erased):  # it is being erased at this very moment
                row[name] = unseal_json(value, self._keyring, f"{table.name}/{row.get('id')}")
        if table is cards and "confusion" in row["card"]:
            about = f"cards/{row['tenant']}/{row['model']}/{row['version']}"
            told = unseal_json(row["card"]["confusion"], self._keyring, about)
            row["card"] = row["card"] | {"confusion": told}
        return row

    def _all(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        """Short rows, of which there are so many that a tenant may have things."""
        with self._database.read() as connection:
            return list(connection.execute(query))


def file_of(holding: Holding) -> str:
    """The name of a kind's rows."""
    return holding.kind.replace(" ", "-")


def told(body: bytes) -> Any:
    """A body as JSON can tell it."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _chunk(day: int, number: int) -> str:
    return f"retained/{day}{'' if number == 1 else f'-{number}'}.jsonl"


def _entry(
    tar: Tar, name: str, opened: BinaryIO | None, size: int | None = None
) -> Iterator[bytes]:
    """A file; nothing where there is none any more."""
    if opened is None:
        return
    with opened:
        if size is None:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(0)
        yield from tar.pieces(name, size, _first(opened, size))


def _first(opened: BinaryIO, size: int) -> Iterator[bytes]:
    """So many bytes: what is added meanwhile is no part of it."""
    for piece in pieces(opened):
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return

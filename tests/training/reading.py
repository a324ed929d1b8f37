"""Uploads that are read as data sets, for tests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from openmaas.audit import By
from openmaas.database import Database, open_database
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.master import MasterFile
from openmaas.encryption.memory import Memory
from openmaas.training.data import DESCRIPTION, SPLITS, Dataset, Description, Preview
from openmaas.training.datasets import DatasetRecord, Datasets
from openmaas.training.formats.hiding import Hiding
from openmaas.training.options import Options, check
from openmaas.training.reading import Reader
from openmaas.training.uploads import Upload, Uploads

ME = By("a test")
OWNER = ("default", "default", "key_0")
TENANT = OWNER[0]


class Read:
    """What came of a file that this very process read."""

    def __init__(
        self,
        form: str,
        content: bytes | Path,
        folder: Path,
        hiding: Hiding | None = None,
        **options: Any,
    ) -> None:
        self.out = folder / f"out{len(list(folder.iterdir()))}"
        self.out.mkdir()
        path = content if isinstance(content, Path) else self.out.with_suffix(".upload")
        if isinstance(content, bytes):
            path.write_bytes(content)
        chosen = msgspec.convert(options, Options)
        check(chosen, form)  # type: ignore[arg-type]
        module = importlib.import_module(f"openmaas.training.formats.{form}")
        self.description: Description
        self.preview: Preview
        self.description, self.preview = module.read(path, self.out, chosen, hiding)
        (self.out / DESCRIPTION).write_bytes(msgspec.json.encode(self.description))

    @property
    def data(self) -> Dataset:
        return Dataset(self.out)

    @property
    def kinds(self) -> dict[str, str]:
        return {one.name: f"{one.kind} {one.dtype}" for one in self.description.columns}

    def split(self) -> list[int]:
        found = np.full(self.description.rows, -1)
        for number, name in enumerate(SPLITS):
            found[self.data.rows(name)] = number
        assert (found >= 0).all()
        return list(found.tolist())


class Desk:
    """A data folder with uploads, data sets and who reads them; no server."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        most_bytes: int = 1 << 30,
        keyring: Keyring | None = None,
    ) -> None:
        self.folder = folder
        self.database = database
        self.keyring = keyring or Keyring(database, MasterFile(folder / "master.key"))
        self.memory = Memory(folder.with_name("memory"), any_disk=True)
        self.uploads = Uploads(database, folder / "uploads", most_bytes, self.keyring)
        self.datasets = Datasets(database, folder / "datasets", self.uploads, self.keyring)
        self.reader = Reader(self.datasets, self.uploads, self.keyring, self.memory)

    def content(self, upload: str) -> bytes:
        """What has arrived of an upload that is whole."""
        with self.uploads.open(self.uploads.whole(upload, TENANT)) as file:
            return file.read()

    def opened(self, dataset: str) -> Dataset:
        """A data set that is ready, unsealed."""
        place = self.memory.path("opened", dataset)
        if not place.exists():
            self.memory.make("opened")
            self.datasets.unseal(dataset, place, self.memory)
        return Dataset(place)

    def upload(self, content: bytes, name: str = "x.csv") -> Upload:
        made = self.uploads.create(name, len(content), None, OWNER, ME)
        return self.uploads.append(made.id, TENANT, 0, content)

    def dataset(self, content: bytes, name: str = "x.csv", **options: Any) -> DatasetRecord:
        """One that waits to be read."""
        upload = self.upload(content, name)
        chosen = msgspec.convert(options, Options)
        return self.datasets.create(name, upload.id, None, chosen, OWNER, ME)

    async def read(self, content: bytes, name: str = "x.csv", **options: Any) -> DatasetRecord:
        """One that a confined process has read."""
        made = self.dataset(content, name, **options)
        await self.reader.read_waiting()
        return self.datasets.get(made.id, TENANT)


@contextmanager
def desk(folder: Path, url: str | None = None, **settings: Any) -> Iterator[Desk]:
    database = open_database(folder / "data", url)
    try:
        yield Desk(folder / "data", database, **settings)
    finally:
        database.close()

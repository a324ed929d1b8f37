"""Data sets through the client: sent in pieces that go on where they broke off."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from openmaas.client.connection import Connection
from openmaas.client.errors import ApiError, ConnectionFailed, DatasetFailed

Object = dict[str, Any]
Told = Callable[[int, int, str], None]  # bytes that are sent, of how many, what is done

PIECE = 8 << 20  # bytes
LEAST_PIECE = 4 << 10
TRIES = 10  # in a row without a byte between
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0  # seconds between two looks or tries
_AGAIN = (408, 409, 429, 500, 502, 503, 504)  # statuses after which it is tried again


@dataclass(frozen=True)
class Dataset:
    """A data set of the server.

    ``description`` says what is in it once it is ready: ``columns`` with their kinds and labels,
    ``splits``, ``target``, ``bad_rows``, ``fingerprint`` … ``told`` is the API's whole answer.
    """

    id: str
    name: str
    state: str  # waiting, reading, ready or failed
    format: str
    description: Object
    error: Object | None
    told: Object

    @classmethod
    def of(cls, told: Object) -> Dataset:
        return cls(
            told["id"],
            told["name"],
            told["state"],
            told["format"],
            told["description"] or {},
            told["error"],
            told,
        )

    @property
    def rows(self) -> int:
        return int(self.description.get("rows", 0))

    @property
    def columns(self) -> Sequence[Object]:
        found: Sequence[Object] = self.description.get("columns", [])
        return found

    @property
    def splits(self) -> dict[str, int]:
        return dict(self.description.get("splits", {}))

    @property
    def target(self) -> str | None:
        return self.description.get("target")

    @property
    def fingerprint(self) -> str | None:
        return self.description.get("fingerprint")


class Datasets:
    """What ``client.datasets`` is.

    Every method raises ``ApiError`` and ``ConnectionFailed`` as the client's own do; sending alone
    is tried again.
    """

    def __init__(self, http: Connection) -> None:
        self._http = http

    def upload(
        self,
        data: Any,
        *,
        name: str | None = None,
        tell: Told | None = None,
        wait: bool = True,
        budget: Object | None = None,
        **options: Any,
    ) -> Dataset:
        """Makes a data set.

        Args:
            data: a file (.csv, .tsv, .jsonl, .parquet, .npz, .zip), a folder of images
                (``class/file.png``), rows as a sequence of objects, or arrays by name.
            name: what to call it; None: as the file is called.
            tell: called with the bytes sent, those in all, and what is done.
            wait: return once it is ready; else once it waits to be read.
            budget: of privacy: ``{"epsilon": …, "delta": …}``.
            options: ``format``, else its name tells; ``target``, ``kinds``, ``split``, ``seed``,
                ``bad_rows``, ``max_bad_fraction``, ``delimiter``, ``image_size``, ``channels``.

        Raises:
            DatasetFailed: it could not be read; the message says why.
        """
        with _file_of(data) as path:
            upload = self.send(path, tell)
        form = options.pop("format", None)
        chosen = {key: value for key, value in options.items() if value is not None}
        body = {"name": name or path.name, "upload": upload, "format": form, "options": chosen}
        body |= {} if budget is None else {"budget": budget}
        made = Dataset.of(self._http.post("/v1/datasets", body))
        return self.wait(made, tell) if wait else made

    def upload_arrays(self, name: str, **arrays: Any) -> Dataset:
        """Makes a data set of arrays whose first dimension is the row: ``x=…, y=…``."""
        return self.upload(arrays, name=name)

    def wait(self, dataset: Dataset | str, tell: Told | None = None) -> Dataset:
        """Returns once it is ready.

        Raises:
            DatasetFailed: it could not be read.
        """
        seconds = FIRST_WAIT
        found = self.get(dataset if isinstance(dataset, str) else dataset.id)
        while found.state in ("waiting", "reading"):
            if tell is not None:
                tell(0, 0, "reading")
            time.sleep(seconds)
            seconds = min(seconds * 1.5, LONGEST_WAIT)
            found = self.get(found.id)
        if found.state != "ready":
            message = (found.error or {}).get("message", found.state)
            raise DatasetFailed(f"{found.name}: {message}")
        return found

    def list(self, *, limit: int = 100, after: str | None = None) -> Sequence[Dataset]:
        """The newest first.

        Args:
            after: the last one's id of the page before.
        """
        query = {"limit": str(limit)} | ({} if after is None else {"after": after})
        return [Dataset.of(one) for one in self._http.get("/v1/datasets", query)["data"]]

    def get(self, dataset: str) -> Dataset:
        return Dataset.of(self._http.get(_path(dataset)))

    def preview(self, dataset: str) -> Object:
        """Names of the ``columns`` and the first ``rows``."""
        found: Object = self._http.get(f"{_path(dataset)}/preview")
        return found

    def budget(
        self, dataset: str, *, epsilon: float | None = None, delta: float | None = None
    ) -> Object:
        """The data set's budget of privacy: what was ``spent`` of it, is ``held`` and is ``left``.

        Args:
            epsilon, delta: both, to give it a budget, or another one.
        """
        path = f"{_path(dataset)}/budget"
        if epsilon is None and delta is None:
            found: Object = self._http.get(path)
            return found
        changed: Object = self._http.put(path, {"epsilon": epsilon, "delta": delta})
        return changed

    def delete(self, dataset: str) -> None:
        self._http.delete(_path(dataset))

    # --- sending -------------------------------------------------------------------------------

    def send(self, path: str | Path, tell: Told | None = None) -> str:
        """Uploads a file, and returns the upload's id. One of the same name and bytes that broke
        off before goes on where it did, also one of another process.

        Raises:
            ApiError, ConnectionFailed: it broke off and could not go on.
        """
        path = Path(path)
        size, sha256 = _measured(path)
        wanted = {"name": path.name, "size": size, "sha256": sha256}
        upload = self._begun(wanted) or self._http.post("/v1/uploads", wanted)
        with path.open("rb") as file:
            self._send(upload["id"], file, upload["received"], size, tell)
        return str(upload["id"])

    def _begun(self, wanted: Object) -> Object | None:
        found = self._http.get("/v1/uploads", {"limit": "1000"})["data"]
        alike = (one for one in found if wanted.items() <= one.items())
        return next((one for one in alike if one["received"] < one["size"]), None)

    def _send(self, id: str, file: Any, offset: int, size: int, tell: Told | None) -> None:
        url, piece, tries = f"/v1/uploads/{quote(id, safe='')}", PIECE, 0
        while offset < size:
            if tell is not None:
                tell(offset, size, "sending")
            file.seek(offset)
            try:
                after = self._http.send_piece(url, file.read(piece), offset)
            except (ConnectionFailed, ApiError) as error:
                status = error.status if isinstance(error, ApiError) else None
                if status == 413 and piece > LEAST_PIECE:
                    piece //= 2  # the server's limit is a lower one
                    continue
                tries += 1
                if tries == TRIES or status not in (None, *_AGAIN):
                    raise
                time.sleep(min(FIRST_WAIT * 2**tries, LONGEST_WAIT))
                after = self._offset(url, offset)
            tries = 0 if after > offset else tries
            offset = after
        if tell is not None:
            tell(size, size, "sent")

    def _offset(self, url: str, before: int) -> int:
        """What arrived of a piece that broke off is there all the same."""
        try:
            return int(self._http.get(url)["received"])
        except ConnectionFailed:
            return before  # the next try finds out
        except ApiError as error:
            if error.status not in _AGAIN:
                raise
            return before


def _path(dataset: str) -> str:
    return f"/v1/datasets/{quote(dataset, safe='')}"


def _measured(path: Path) -> tuple[int, str]:
    size, sha256 = 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            size += len(chunk)
            sha256.update(chunk)
    return size, sha256.hexdigest()


# --- what is given, as a file ---------------------------------------------------------------------


@contextlib.contextmanager
def _file_of(data: Any) -> Iterator[Path]:
    if isinstance(data, str | os.PathLike) and Path(data).is_file():
        yield Path(data)
        return
    with tempfile.TemporaryDirectory(prefix="openmaas-") as folder:
        if isinstance(data, str | os.PathLike):
            yield _zipped(Path(data), Path(folder))
        elif isinstance(data, Mapping):
            yield _saved(data, Path(folder))
        else:
            yield _written(data, Path(folder))


def _zipped(images: Path, folder: Path) -> Path:
    if not images.is_dir():
        raise FileNotFoundError(f"no file or folder {images}")
    made = folder / f"{images.resolve().name}.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(images.rglob("*")):
            inside = path.relative_to(images)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                entry = zipfile.ZipInfo(inside.as_posix())  # the same bytes whenever it is packed
                archive.writestr(entry, path.read_bytes())
    return made


def _saved(arrays: Mapping[str, Any], folder: Path) -> Path:
    import numpy as np  # only who has arrays needs it

    made = folder / "arrays.npz"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return made


def _written(rows: Any, folder: Path) -> Path:
    made = folder / "rows.jsonl"
    with made.open("w", encoding="utf-8") as file:
        for row in rows:
            if not isinstance(row, Mapping):
                raise TypeError("rows are objects: [{'text': …, 'label': …}, …]")
            file.write(json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n")
    return made

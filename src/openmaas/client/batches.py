"""Batches through the client: many requests in a file, answered when nobody else waits."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from openmaas.client.connection import Connection
from openmaas.client.errors import BatchFailed, StreamBroken

Object = dict[str, Any]

FINISHED = ("completed", "failed", "expired", "cancelled")
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0  # seconds between two looks
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class File:
    """A file of the server. ``told`` is the API's whole answer."""

    id: str
    name: str
    size: int
    purpose: str
    created: int
    expires: int
    told: Object

    @classmethod
    def of(cls, told: Object) -> File:
        return cls(
            told["id"], told["filename"], told["bytes"], told["purpose"], told["created_at"],
            told["expires_at"], told,
        )  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """A batch of the server. ``told`` is the API's whole answer."""

    id: str
    status: str  # validating, in_progress, finalizing, cancelling, or one of FINISHED
    endpoint: str
    total: int  # lines
    completed: int
    failed: int
    created: int
    told: Object

    @classmethod
    def of(cls, told: Object) -> Batch:
        counts = told["request_counts"]
        return cls(
            told["id"], told["status"], told["endpoint"], counts["total"], counts["completed"],
            counts["failed"], told["created_at"], told,
        )  # fmt: skip

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def errors(self) -> Sequence[Object]:
        """Why it failed: ``code``, ``message``, ``line``, ``param``."""
        found: Sequence[Object] = (self.told["errors"] or {"data": []})["data"]
        return found


@dataclass(frozen=True)
class Result:
    """What became of a line. ``body`` is the answer, or the error as the server tells it; None
    where the line was never asked."""

    custom_id: str
    status: int | None
    body: Any
    error: Object | None
    told: Object

    @classmethod
    def of(cls, told: Object) -> Result:
        response = told["response"] or {"status_code": None, "body": None}
        return cls(
            told["custom_id"], response["status_code"], response["body"], told["error"], told
        )


class Files:
    """What ``client.files`` is.

    Every method raises ``ApiError`` and ``ConnectionFailed`` as the client's own do.
    """

    def __init__(self, http: Connection) -> None:
        self._http = http

    def create(
        self, file: str | Path | IO[bytes], *, name: str | None = None, seconds: int | None = None
    ) -> File:
        """Sends a file of JSON Lines; it is read as it is sent.

        Args:
            file: a path, or what is open.
            name: what to call it; None: as the file is called.
            seconds: after which it is removed; None: 30 days.
        """
        fields = {"purpose": "batch"}
        if seconds is not None:
            fields |= {
                "expires_after[anchor]": "created_at",
                "expires_after[seconds]": str(seconds),
            }
        if isinstance(file, str | os.PathLike):
            with Path(file).open("rb") as opened:
                return self._send(name or Path(file).name, opened, fields)
        return self._send(name or "batch.jsonl", file, fields)

    def get(self, file: str) -> File:
        return File.of(self._http.get(_path("files", file)))

    def list(self, *, limit: int = 100, after: str | None = None) -> Sequence[File]:
        """The newest first.

        Args:
            after: the last one's id of the page before.
        """
        return [File.of(one) for one in self._http.get("/v1/files", _page(limit, after))["data"]]

    def content(self, file: str) -> Iterator[bytes]:
        """What is in it, as it arrives.

        Raises:
            StreamBroken: it ended before its end.
        """
        return self._http.pieces(f"{_path('files', file)}/content", {})

    def lines(self, file: str) -> Iterator[Object]:
        """The objects of its lines.

        Raises:
            StreamBroken: it ended before its end.
        """
        rest = b""
        for piece in self.content(file):
            *whole, rest = (rest + piece).split(b"\n")
            yield from map(json.loads, whole)
        if rest:
            raise StreamBroken("the file ended within a line")

    def delete(self, file: str) -> None:
        self._http.delete(_path("files", file))

    def _send(self, name: str, file: IO[bytes], fields: Mapping[str, str]) -> File:
        return File.of(self._http.send_file("/v1/files", name, file, fields))


class Batches:
    """What ``client.batches`` is.

    Every method raises ``ApiError`` and ``ConnectionFailed`` as the client's own do.
    """

    def __init__(self, http: Connection, files: Files) -> None:
        self._http = http
        self._files = files

    def create(
        self,
        requests: str | Path | File | Iterable[Mapping[str, Any]],
        endpoint: str = CHAT,
        *,
        metadata: Mapping[str, str] | None = None,
        keep: int | None = None,
    ) -> Batch:
        """Has requests answered within a day.

        Args:
            requests: a file of the server or of here, with a line for each; or the bodies, whose
                ``custom_id`` is then their place from 0; or whole lines that have one.
            endpoint: that all of them are for.
            metadata: of your own, up to 16.
            keep: seconds after which the answers are removed; None: 30 days.
        """
        body: Object = {
            "input_file_id": self._input(requests, endpoint),
            "endpoint": endpoint,
            "completion_window": "24h",
        }
        if metadata is not None:
            body["metadata"] = dict(metadata)
        if keep is not None:
            body["output_expires_after"] = {"anchor": "created_at", "seconds": keep}
        return Batch.of(self._http.post("/v1/batches", body))

    def get(self, batch: str) -> Batch:
        return Batch.of(self._http.get(_path("batches", batch)))

    def list(self, *, limit: int = 20, after: str | None = None) -> Sequence[Batch]:
        """The newest first.

        Args:
            after: the last one's id of the page before.
        """
        found = self._http.get("/v1/batches", _page(limit, after))["data"]
        return [Batch.of(one) for one in found]

    def cancel(self, batch: str) -> Batch:
        """What is answered is kept."""
        return Batch.of(self._http.post(f"{_path('batches', batch)}/cancel", {}))

    def wait(self, batch: Batch | str, tell: Callable[[Batch], None] | None = None) -> Batch:
        """Returns once it is completed, expired or cancelled.

        Args:
            tell: called with the batch at each look.

        Raises:
            BatchFailed: its file is wrong; nothing was asked.
        """
        seconds = FIRST_WAIT
        found = self.get(batch if isinstance(batch, str) else batch.id)
        while not found.finished:
            if tell is not None:
                tell(found)
            time.sleep(seconds)
            seconds = min(seconds * 1.5, LONGEST_WAIT)
            found = self.get(found.id)
        if tell is not None:
            tell(found)
        if found.status == "failed":
            raise BatchFailed(found.id, found.errors)
        return found

    def results(self, batch: Batch | str) -> Iterator[Result]:
        """What became of each line of a finished batch: first what succeeded, in no order.

        Raises:
            StreamBroken: an answer ended before its end.
        """
        found = self.get(batch if isinstance(batch, str) else batch.id)
        for name in ("output_file_id", "error_file_id"):
            if found.told[name] is not None:
                yield from map(Result.of, self._files.lines(found.told[name]))

    def _input(
        self, requests: str | Path | File | Iterable[Mapping[str, Any]], endpoint: str
    ) -> str:
        if isinstance(requests, File):
            return requests.id
        if isinstance(requests, str) and requests.startswith("file-"):
            return requests
        if isinstance(requests, str | os.PathLike):
            return self._files.create(requests).id
        with tempfile.TemporaryFile() as file:
            for number, one in enumerate(requests):
                whole = dict(one)
                if "custom_id" not in whole:
                    whole = {
                        "custom_id": str(number), "method": "POST", "url": endpoint, "body": whole,
                    }  # fmt: skip
                file.write(json.dumps(whole, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            file.seek(0)
            return self._files.create(file).id


def _path(kind: str, id: str) -> str:
    return f"/v1/{kind}/{quote(id, safe='')}"


def _page(limit: int, after: str | None) -> dict[str, str]:
    return {"limit": str(limit)} | ({} if after is None else {"after": after})

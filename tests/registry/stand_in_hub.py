"""A small server that speaks the hub's protocol: model info, HEAD with etag, GET with Range."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/small"


class Hub:
    """Serves the files of ``folder`` as the repository ``someone/small`` at ``COMMIT``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.sent = 0  # bytes of file content
        self.cut_after: int | None = None  # bytes of a file after which it goes down
        self.down = False  # connections are closed without an answer
        self.url = ""

    def files(self) -> list[str]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)

    def asked(self, method: str) -> list[str]:
        """Names of files that were asked for."""
        start = f"/{REPOSITORY}/resolve/{COMMIT}/"
        return [
            path.removeprefix(start)
            for used, path, _ in self.requests
            if used == method and path.startswith(start)
        ]


@contextmanager
def running(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._serve()

        def do_GET(self) -> None:
            self._serve()

        def _serve(self) -> None:
            if hub.down:
                self.close_connection = True
                return
            path = self.path.partition("?")[0]
            hub.requests.append((self.command, path, self.headers.get("Range")))
            if path == f"/api/models/{REPOSITORY}/revision/{COMMIT}":
                self._json(_info(hub))
                return
            start = f"/{REPOSITORY}/resolve/{COMMIT}/"
            name = path.removeprefix(start)
            if path.startswith(start) and name in hub.files():
                self._file(hub.folder / name)
                return
            self._json({"error": "not found"}, 404)

        def _json(self, value: Any, status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _file(self, path: Path) -> None:
            content = path.read_bytes()
            start = 0
            asked = self.headers.get("Range")
            if asked is not None:
                start = int(asked.removeprefix("bytes=").partition("-")[0])
            self.send_response(200 if asked is None else 206)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            if asked is not None:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.end_headers()
            if self.command == "HEAD":
                return
            body = content[start:]
            if hub.cut_after is not None and len(body) > hub.cut_after:
                body = body[: hub.cut_after]
                self.close_connection = hub.down = True
            self.wfile.write(body)
            hub.sent += len(body)

    return Handler


def _info(hub: Hub) -> dict[str, Any]:
    return {
        "_id": "1",
        "id": REPOSITORY,
        "modelId": REPOSITORY,
        "sha": COMMIT,
        "private": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [
            {"rfilename": name, "size": (hub.folder / name).stat().st_size, "blobId": "0" * 40}
            for name in hub.files()
        ],
    }

"""llama.cpp's tokenizer, which xllamacpp offers over HTTP only: here over a Unix socket."""

from __future__ import annotations

import http.client
import json
import socket

from openmaas.errors import EngineFailed

_SECONDS = 30.0


class TokenizerLine:
    """One kept connection. Used from one thread."""

    def __init__(self, path: str, key: str) -> None:
        self._connection = _Connection(path)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def encode(self, text: str) -> list[int]:
        """Special tokens written in the text are recognised; none is added.

        Raises:
            EngineFailed: no answer.
        """
        body = json.dumps({"content": text, "add_special": False, "parse_special": True})
        for attempt in (1, 2):
            try:
                self._connection.request("POST", "/tokenize", body, self._headers)
                response = self._connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()  # idle for long: the server has closed it
                if attempt == 2:
                    raise EngineFailed("the tokenizer does not answer") from error
                continue
            if response.status != 200:
                raise EngineFailed("the tokenizer failed")
            ids: list[int] = json.loads(answer)["tokens"]
            return ids
        raise AssertionError

    def close(self) -> None:
        self._connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

"""HTTP to one server: JSON both ways, server-sent events, and errors made into exceptions."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import httpx

from openmaas.client.errors import ApiError, ConnectionFailed, StreamBroken


class Connection:
    """Requests to one server. Each raises ``ApiError`` for an error that the server tells of, and
    ``ConnectionFailed`` where none answers."""

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        self._url = url
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        # Without certificates, which take longer to read than a call takes, where none is shown.
        plain = url.lower().startswith("http://")
        self._http = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=10),
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
        )

    def close(self) -> None:
        self._http.close()

    def answer(self, path: str, query: Mapping[str, str] | None = None) -> httpx.Response:
        """Whatever is answered, errors too."""
        with connected(self._url):
            return self._http.get(path, params=query)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return _json(self.answer(path, query))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        with connected(self._url):
            return _json(self._http.patch(path, json=body))

    def put(self, path: str, body: Mapping[str, Any] | None) -> Any:
        with connected(self._url):
            return _json(self._http.put(path, json=body))

    def send_piece(self, path: str, piece: bytes, offset: int) -> int:
        """Sends a piece of an upload; where the next begins."""
        headers = {"Content-Type": "application/octet-stream", "Upload-Offset": str(offset)}
        with connected(self._url):
            return int(_json(self._http.patch(path, content=piece, headers=headers))["received"])

    def send_file(self, path: str, name: str, file: IO[bytes], fields: Mapping[str, str]) -> Any:
        """Sends a form with a file, which is read as it is sent."""
        with connected(self._url):
            return _json(self._http.post(path, data=dict(fields), files={"file": (name, file)}))

    def delete(self, path: str) -> Any:
        with connected(self._url):
            return _json(self._http.delete(path))

    def pieces(self, path: str, query: Mapping[str, str]) -> Iterator[bytes]:
        """A long answer as it arrives.

        Raises:
            StreamBroken: it ended before its end.
        """
        with connected(self._url), self._http.stream("GET", path, params=query) as response:
            if response.is_error:
                response.read()
                raise ApiError.of(response)
            try:
                yield from response.iter_bytes()
            except httpx.TransportError as error:
                raise StreamBroken(f"the answer broke: {error}") from error

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        with connected(self._url):
            return _json(self._http.post(path, json=body))

    def post_raw(self, path: str, body: Mapping[str, Any]) -> bytes:
        """An answer that is no JSON."""
        with connected(self._url):
            response = self._http.post(path, json=body)
        if response.is_error:
            raise ApiError.of(response)
        return response.content

    def post_json(self, path: str, body: str) -> Any:
        """A body that is JSON already."""
        with connected(self._url):
            headers = {"content-type": "application/json"}
            return _json(self._http.post(path, content=body.encode(), headers=headers))

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """The events of an answer; leaving the loop early cancels the rest.

        Raises:
            StreamBroken: it ended before its end.
        """
        return self._followed("POST", path, json={**body, "stream": True})

    def follow(self, path: str, query: Mapping[str, str]) -> Iterator[Any]:
        """The same of what is asked for by its URL."""
        return self._followed("GET", path, params=query)

    def _followed(self, method: str, path: str, **what: Any) -> Iterator[Any]:
        with (
            connected(self._url),
            self._http.stream(method, path, **what) as response,
        ):
            if response.is_error:
                response.read()
                raise ApiError.of(response)
            yield from _events(response)


@contextmanager
def connected(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ConnectionFailed(f"{url}: {error or type(error).__name__}") from error


def _json(response: httpx.Response) -> Any:
    if response.is_error:
        raise ApiError.of(response)
    return response.json()


def _events(response: httpx.Response) -> Iterator[Any]:
    for line in _lines(response):
        if not line.startswith("data:"):
            continue  # a comment that keeps the connection alive, or the line between events
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise ApiError.in_stream(event["error"], response.headers.get("x-request-id"))
        yield event
    raise StreamBroken("the stream ended before its end; what came is not the whole answer")


def _lines(response: httpx.Response) -> Iterator[str]:
    try:
        yield from response.iter_lines()
    except httpx.TransportError as error:  # a reset, or silence beyond the time limit
        raise StreamBroken(
            f"the stream broke ({error or type(error).__name__}); what came is not the whole answer"
        ) from error

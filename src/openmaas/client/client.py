"""The client itself: one method for each thing to ask of a server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from openmaas.client.errors import ApiError, ConnectionFailed, StreamBroken
from openmaas.client.forms import Health, Nested, Number, Output, Reply, Usage

Messages = str | Sequence[Mapping[str, Any]]


class Client:
    """A connection to one server.

    Args:
        url: the server's base URL, without ``/v1``.
        api_key: sent as a bearer token.
        timeout: seconds without a byte after which an answer is given up.

    Every method raises ``ApiError`` for an error that the server tells of, and
    ``ConnectionFailed`` where none answers. Nothing is tried twice.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        timeout: float = 300.0,
    ) -> None:
        self.url = url.rstrip("/")
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=httpx.Timeout(timeout, connect=10)
        )
        self._inputs: dict[str, list[dict[str, Any]]] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- language models ---------------------------------------------------------------

    def chat(self, model: str, messages: Messages, **parameters: Any) -> Reply:
        """A whole answer.

        Args:
            messages: the conversation, or one user's text.
            parameters: any of OpenAI's: ``max_tokens``, ``temperature``, ``tools`` …
        """
        body = _chat_body(model, messages, parameters)
        answer = self._post("/v1/chat/completions", body)
        choice = answer["choices"][0]
        return Reply(
            text=choice["message"].get("content") or "",
            finish_reason=choice["finish_reason"],
            usage=_usage(answer),
            tool_calls=choice["message"].get("tool_calls") or [],
        )

    def stream(self, model: str, messages: Messages, **parameters: Any) -> Iterator[str]:
        """The answer's text, piece by piece; leaving the loop early cancels the rest.

        Raises:
            StreamBroken: it ended before its end.
        """
        body = _chat_body(model, messages, parameters) | {"stream": True}
        with (
            _connected(self.url),
            self._http.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            if response.is_error:
                response.read()
                raise ApiError.of(response)
            for event in _events(response):
                for choice in event["choices"]:
                    if text := choice["delta"].get("content"):
                        yield text

    # --- embeddings and ordinary networks ------------------------------------------------

    def embed(
        self, model: str, inputs: str | Sequence[str], *, dimensions: int | None = None
    ) -> list[list[float]]:
        """A vector of unit length for each text, in order."""
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        body: dict[str, Any] = {"model": model, "input": texts}
        if dimensions is not None:
            body["dimensions"] = dimensions
        found = sorted(self._post("/v1/embeddings", body)["data"], key=lambda one: one["index"])
        return [one["embedding"] for one in found]

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Nested] | Sequence[Nested],
        *,
        version: int | None = None,
    ) -> dict[str, Output]:
        """Runs a network on a batch of rows.

        Args:
            inputs: nested rows for each input by name; just the rows where there is one input.

        Raises:
            ValueError: the rows have no common shape, or an input has no such name.
        """
        known = self.inputs(model, version=version)
        if not isinstance(inputs, Mapping):
            if len(known) != 1:
                names = ", ".join(one["name"] for one in known)
                raise ValueError(f"{model} has several inputs; give rows for each of: {names}")
            inputs = {known[0]["name"]: inputs}
        types = {one["name"]: one["datatype"] for one in known}
        tensors = []
        for name, rows in inputs.items():
            if name not in types:
                raise ValueError(f"{model} has no input {name!r}; it has: {', '.join(types)}")
            shape, flat = _flatten(rows)
            tensors.append({"name": name, "datatype": types[name], "shape": shape, "data": flat})
        return self.infer(model, {"inputs": tensors}, version=version)

    def infer(
        self, model: str, body: Mapping[str, Any], *, version: int | None = None
    ) -> dict[str, Output]:
        """Sends an Open Inference Protocol V2 request as it is; outputs by name."""
        answer = self._post(f"{_model_path(model, version)}/infer", body)
        return {
            one["name"]: Output(one["name"], one["datatype"], one["shape"], one["data"])
            for one in answer["outputs"]
        }

    def inputs(self, model: str, *, version: int | None = None) -> list[dict[str, Any]]:
        """Name, datatype and shape of each input of a network."""
        path = _model_path(model, version)
        if path not in self._inputs:
            self._inputs[path] = self._get(path)["inputs"]
        return self._inputs[path]

    # --- the server ----------------------------------------------------------------------

    def models(self) -> list[str]:
        """Names of what is deployed."""
        return [one["id"] for one in self._get("/v1/models")["data"]]

    def health(self) -> Health:
        """How the server does; no key is needed."""
        with _connected(self.url):
            response = self._http.get("/health")
        if response.status_code not in (200, 503):
            raise ApiError.of(response)
        try:
            found = response.json()
            return Health(found["status"], found["version"], found["models"])
        except (ValueError, KeyError, TypeError):
            raise ApiError.of(response) from None

    # --- HTTP ----------------------------------------------------------------------------

    def _get(self, path: str) -> Any:
        with _connected(self.url):
            return _json(self._http.get(path))

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        with _connected(self.url):
            return _json(self._http.post(path, json=body))


@contextmanager
def _connected(url: str) -> Iterator[None]:
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


def _chat_body(model: str, messages: Messages, parameters: dict[str, Any]) -> dict[str, Any]:
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return {"model": model, "messages": list(turns), **parameters}


def _usage(answer: Mapping[str, Any]) -> Usage:
    found = answer["usage"]
    return Usage(found["prompt_tokens"], found["completion_tokens"])


def _model_path(model: str, version: int | None) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{version}"


def _flatten(rows: Nested) -> tuple[list[int], list[Number]]:
    """Shape and row-major elements of nested sequences.

    Raises:
        ValueError: they are ragged.
    """
    if isinstance(rows, bool | int | float | str):
        return [], [rows]
    shape: list[int] = []
    flat: list[Number] = []
    for row in rows:
        inner, elements = _flatten(row)
        if flat and inner != shape:
            raise ValueError(f"rows differ in shape: {shape} and {inner}")
        shape = inner
        flat += elements
    return [len(rows), *shape], flat

"""The client itself: one method for each thing to ask of a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

from openmaas.client.batches import Batches, Files
from openmaas.client.connection import Connection
from openmaas.client.datasets import Datasets
from openmaas.client.deployments import Deployments
from openmaas.client.errors import ApiError
from openmaas.client.explain_model import ExplainingModels
from openmaas.client.explaining import Explaining
from openmaas.client.forms import (
    Classification,
    Entity,
    Health,
    Nested,
    Number,
    Output,
    Relevance,
    Reply,
    Translation,
    Usage,
)
from openmaas.client.privacy import Privacy
from openmaas.client.sessions import Sessions
from openmaas.client.tenants import Tenants
from openmaas.client.training import Training

Messages = str | Sequence[Mapping[str, Any]]
Texts = str | Sequence[str]


class Client:
    """A connection to one server.

    Args:
        url: the server's base URL, without ``/v1``.
        api_key: sent as a bearer token.
        timeout: seconds without a byte after which an answer is given up.

    Every method raises ``ApiError`` for an error that the server tells of, and
    ``ConnectionFailed`` where none answers. Nothing is tried twice but pieces of an upload.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        timeout: float = 300.0,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = Connection(self.url, api_key, timeout)
        self.tenants = Tenants(self._http)
        self.privacy = Privacy(self._http)
        self.deployments = Deployments(self._http)
        self.datasets = Datasets(self._http)
        self.training = Training(self._http, self.datasets)
        self.files = Files(self._http)
        self.batches = Batches(self._http, self.files)
        self.sessions = Sessions(
            self._http, lambda: Connection(self.url, api_key, timeout), self.training.network
        )
        self.explain = Explaining(self._http)
        self.explain_model = ExplainingModels(self._http)
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
        answer = self._http.post("/v1/chat/completions", body)
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
        body = _chat_body(model, messages, parameters)
        for event in self._http.stream("/v1/chat/completions", body):
            for choice in event["choices"]:
                if text := choice["delta"].get("content"):
                    yield text

    # --- language tasks: without a model, the deployed one that does it best -----------------

    def classify(
        self, texts: Texts, labels: Sequence[str] | None = None, **parameters: Any
    ) -> list[Classification]:
        """Which label each text has.

        Args:
            labels: to choose from; without them the model's own.
            parameters: ``model``, ``multi_label``, ``hypothesis_template``, ``top_k``.
        """
        if labels is not None:
            parameters["labels"] = list(labels)
        return _classifications(self._task("/v1/classify", texts, parameters))

    def sentiment(self, texts: Texts, *, model: str | None = None) -> list[Classification]:
        """Whether each text is negative, neutral or positive."""
        return _classifications(self._task("/v1/sentiment", texts, {"model": model}))

    def entities(self, texts: Texts, **parameters: Any) -> list[list[Entity]]:
        """People, addresses and the like in each text, in its order.

        Args:
            parameters: ``model``, ``aggregation`` (first, simple, average, max, none).
        """
        return [
            [Entity(**entity) for entity in one["entities"]]
            for one in self._task("/v1/entities", texts, parameters)
        ]

    def summarize(self, texts: Texts, **parameters: Any) -> list[str]:
        """What each text says, in fewer words.

        Args:
            parameters: ``model``, ``length`` (short, medium, long), ``style`` (paragraph,
                bullets), ``language``.
        """
        return [one["summary"] for one in self._task("/v1/summarize", texts, parameters)]

    def translate(self, texts: Texts, target: str, **parameters: Any) -> list[Translation]:
        """Each text in another language.

        Args:
            target: an ISO 639 code: pt, zh-Hans …
            parameters: ``model``, ``source`` (without it, detected).
        """
        found = self._task("/v1/translate", texts, {"target": target} | parameters)
        return [
            Translation(
                one["translation"], one["source"], one["target"], one["score"], one["model"]
            )
            for one in found
        ]

    def stream_summary(self, text: str, **parameters: Any) -> Iterator[str]:
        """A summary, piece by piece; as ``summarize``.

        Raises:
            StreamBroken: it ended before its end.
        """
        return self._pieces("/v1/summarize", {"input": text} | parameters)

    def stream_translation(self, text: str, target: str, **parameters: Any) -> Iterator[str]:
        """A translation, piece by piece; as ``translate``.

        Raises:
            StreamBroken: it ended before its end.
        """
        return self._pieces("/v1/translate", {"input": text, "target": target} | parameters)

    def rerank(self, query: str, documents: Sequence[str], **parameters: Any) -> list[Relevance]:
        """Documents by their relevance to a query, the most relevant first.

        Args:
            parameters: ``model``, ``top_n``.
        """
        body = {"query": query, "documents": list(documents)} | parameters
        found = self._http.post("/v1/rerank", body)["results"]
        return [Relevance(one["index"], one["relevance_score"]) for one in found]

    def tokenize(self, model: str, texts: Texts) -> list[list[str]]:
        """The tokens of each text, as a model splits it."""
        found = self._task("/v1/tokenize", texts, {"model": model})
        return [[token["text"] for token in one["tokens"]] for one in found]

    def _task(self, path: str, texts: Texts, parameters: Mapping[str, Any]) -> list[Any]:
        given = {name: value for name, value in parameters.items() if value is not None}
        inputs = [texts] if isinstance(texts, str) else list(texts)
        found: list[Any] = self._http.post(path, {"input": inputs} | given)["data"]
        return found

    def _pieces(self, path: str, body: Mapping[str, Any]) -> Iterator[str]:
        given = {name: value for name, value in body.items() if value is not None}
        for event in self._http.stream(path, given):
            if "delta" in event:
                yield event["delta"]

    # --- embeddings and ordinary networks ------------------------------------------------

    def embed(
        self, model: str, inputs: str | Sequence[str], *, dimensions: int | None = None
    ) -> list[list[float]]:
        """A vector of unit length for each text, in order."""
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        body: dict[str, Any] = {"model": model, "input": texts}
        if dimensions is not None:
            body["dimensions"] = dimensions
        found = sorted(
            self._http.post("/v1/embeddings", body)["data"], key=lambda one: one["index"]
        )
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
        answer = self._http.post(f"{_model_path(model, version)}/infer", body)
        return {
            one["name"]: Output(one["name"], one["datatype"], one["shape"], one["data"])
            for one in answer["outputs"]
        }

    def inputs(self, model: str, *, version: int | None = None) -> list[dict[str, Any]]:
        """Name, datatype and shape of each input of a network."""
        path = _model_path(model, version)
        if path not in self._inputs:
            self._inputs[path] = self._http.get(path)["inputs"]
        return self._inputs[path]

    # --- the server ----------------------------------------------------------------------

    def models(self) -> list[str]:
        """Names of what is deployed."""
        return [one["id"] for one in self._http.get("/v1/models")["data"]]

    def health(self) -> Health:
        """How the server does; no key is needed."""
        response = self._http.answer("/health")
        try:
            found = response.json()
            return Health(found["status"], found["version"], found["models"])
        except (ValueError, KeyError, TypeError):
            raise ApiError.of(response) from None


def _chat_body(model: str, messages: Messages, parameters: dict[str, Any]) -> dict[str, Any]:
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return {"model": model, "messages": list(turns), **parameters}


def _classifications(found: list[Any]) -> list[Classification]:
    return [
        Classification(
            one["label"], one["score"], {each["label"]: each["score"] for each in one["scores"]}
        )
        for one in found
    ]


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

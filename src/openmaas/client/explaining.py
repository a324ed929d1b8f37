"""Why models answer as they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openmaas.client.connection import Connection
from openmaas.client.errors import StreamBroken

Progress = Callable[[int, int], None]  # passes so far, and of how many at the most


class Explaining:
    """``client.explain(…)`` and what belongs to it."""

    def __init__(self, http: Connection) -> None:
        self._http = http

    def __call__(
        self,
        input: str | Mapping[str, Any] | Sequence[Any],
        model: str | None = None,
        *,
        progress: Progress | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Which parts of an input a model's answer is due to, in Vertex AI's shape, with how far
        that can be trusted and what it cost.

        Args:
            input: a text; a row of a network; a conversation, or one user's text, of a chat model.
            model: without it, of texts the deployed one that classifies best.
            progress: told how far it is.
            parameters: ``method``, ``target``, ``unit``, ``labels``, ``answer`` (of a chat model),
                ``baseline``, ``budget``, ``seed``, ``top_k``, ``dry_run`` …: see docs/explain.md.
        """
        body = _body(input, model, parameters)
        if progress is None or parameters.get("dry_run"):
            found: dict[str, Any] = self._http.post("/v1/explain", body)
            return found
        for event in self._http.stream("/v1/explain", body):
            if event["object"] == "explanation":
                return dict(event)
            progress(event["done"], event["total"])
        raise StreamBroken("the stream ended without an explanation")

    def page(
        self, input: str | Mapping[str, Any] | Sequence[Any], model: str | None = None, **more: Any
    ) -> str:
        """The same as one HTML page."""
        body = _body(input, model, more | {"render": "html"})
        return self._http.post_raw("/v1/explain", body).decode()

    def picture(
        self, input: str | Mapping[str, Any] | Sequence[Any], model: str | None = None, **more: Any
    ) -> bytes:
        """The same as a PNG.

        Args:
            more: as above, and ``dark``.
        """
        return self._http.post_raw("/v1/explain", _body(input, model, more | {"render": "png"}))


def _body(input: Any, model: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in parameters.items() if value is not None}
    return {"input": input, **({} if model is None else {"model": model}), **given}

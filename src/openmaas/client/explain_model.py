"""How whole models behave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from openmaas.client.connection import Connection
from openmaas.client.errors import StreamBroken

PATH = "/v1/explain/model"
Progress = Callable[[int, int], None]  # passes so far, and of how many at the most


class ExplainingModels:
    """``client.explain_model(…)`` and what belongs to it."""

    def __init__(self, http: Connection) -> None:
        self._http = http

    def __call__(
        self, model: str, *, progress: Progress | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """Which columns a deployed model needs, how well it is calibrated, what it takes for what
        and which training examples are nearest, by rows of a data set.

        Args:
            progress: told how far it is.
            parameters: ``dataset`` (without it, the one that the model was trained on),
                ``target``, ``split``, ``parts``, ``rows``, ``repeats``, ``bins``, ``seed``,
                ``input`` and ``k`` of neighbours, ``dry_run``.
        """
        body = _body(model, parameters)
        if progress is None or parameters.get("dry_run"):
            found: dict[str, Any] = self._http.post(PATH, body)
            return found
        for event in self._http.stream(PATH, body):
            if event["object"] == "explanation.model":
                return dict(event)
            progress(event["done"], event["total"])
        raise StreamBroken("the stream ended without a report")

    def page(self, model: str, **parameters: Any) -> str:
        """The same as one HTML page."""
        return self._http.post_raw(PATH, _body(model, parameters | {"render": "html"})).decode()

    def picture(self, model: str, **parameters: Any) -> bytes:
        """The same as a PNG.

        Args:
            parameters: as above, and ``dark``.
        """
        return self._http.post_raw(PATH, _body(model, parameters | {"render": "png"}))


def _body(model: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in parameters.items() if value is not None}
    return {"model": model, **given}

"""Training jobs and the versions that come of them, through the client."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from openmaas.client.connection import Connection
from openmaas.client.datasets import Dataset, Datasets
from openmaas.client.errors import JobFailed, StreamBroken

Object = dict[str, Any]
Told = Callable[[Object], None]
FINISHED = ("succeeded", "failed", "cancelled")
AGAIN_SECONDS = 1.0


class Job:
    """One training run. What it is: ``state``, ``progress``, ``version``, ``error`` …, as of the
    last ``refresh``."""

    def __init__(self, http: Connection, told: Object) -> None:
        self._http = http
        self._told = told

    def __getattr__(self, name: str) -> Any:
        try:
            return self._told[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return f"Job({self.id}, {self.model}, {self.state})"

    @property
    def told(self) -> Object:
        """The API's whole answer."""
        return self._told

    def refresh(self) -> Job:
        self._told = self._http.get(self._path())
        return self

    def pause(self) -> Job:
        """A checkpoint is written, and nothing is computed until ``resume``."""
        return self._act("pause")

    def resume(self) -> Job:
        return self._act("resume")

    def cancel(self) -> Job:
        return self._act("cancel")

    def events(self, after: int = 0) -> Iterator[Object]:
        """What happened and happens, until it is finished. A connection that breaks is made anew.

        Yields:
            ``number``, ``time`` (milliseconds), ``kind`` (state, epoch, checkpoint or message) and
            ``data``; between them ``kind`` progress, which has no number.
        """
        while True:
            try:
                query = {"stream": "true", "after": str(after)}
                for event in self._http.follow(self._path("events"), query):
                    after = event.get("number", after)
                    yield event
                return
            except StreamBroken:
                time.sleep(AGAIN_SECONDS)

    def wait(self, tell: Told | None = None) -> Job:
        """Returns once it has succeeded.

        Args:
            tell: called with each event.

        Raises:
            JobFailed: it failed or was cancelled.
        """
        for event in self.events():
            if tell is not None:
                tell(event)
        self.refresh()
        if self.state != "succeeded":
            error = self.error or {"message": f"it is {self.state}"}
            raise JobFailed(f"{self.id}: {error['message']}")
        return self

    def card(self) -> Object:
        """How the version came to be: data, settings, metrics, history."""
        version = f"/v1/models/{quote(self.model, safe='')}/versions/{self.version}"
        found: Object = self._http.get(version)
        return found

    def curve(self) -> bytes:
        """The learning curve, PNG."""
        return b"".join(self._http.pieces(self._path("curve.png"), {}))

    def _act(self, action: str) -> Job:
        self._told = self._http.post(self._path(action), {})
        return self

    def _path(self, *rest: str) -> str:
        return "/".join(("/v1/training/jobs", self.id, *rest))


class Training:
    """What ``client.training`` is.

    Every method raises ``ApiError`` and ``ConnectionFailed`` as the client's own do.
    """

    def __init__(self, http: Connection, datasets: Datasets) -> None:
        self._http = http
        self._datasets = datasets

    def train(
        self, model: str, data: Any, *, wait: bool = True, tell: Told | None = None, **job: Any
    ) -> Job:
        """Trains a model and registers it as the name's next version.

        Args:
            data: a data set of the server (or its id), a file, or arrays by name.
            wait: return once it has succeeded; else once it is queued.
            tell: called with each event meanwhile.
            job: ``recipe`` and ``parameters``, or ``network``: a Keras model, its JSON, or a path
                of a ``.keras`` file; ``inputs`` and ``target`` (columns); ``fit`` (optimizer,
                loss, metrics, epochs, batch_size, callbacks, class_weight, seed, backend);
                ``promote`` (True, or ``{"metric": …, "at_least": …}``): serve it at once;
                ``privacy`` (``{"epsilon": 3, "delta": 1e-5}``; ``max_grad_norm``, ``noise``,
                ``noise_multiplier``): what may be learnt of any one row is bounded.

        Raises:
            JobFailed: it failed.
        """
        job = {name: value for name, value in job.items() if value is not None}
        if "network" in job:
            job["network"] = self.network(job["network"])
        dataset = self._dataset(model, data, job.get("target"))
        body = {"model": model, "dataset": dataset, **job}
        made = Job(self._http, self._http.post("/v1/training/jobs", body))
        return made.wait(tell) if wait else made

    def job(self, id: str) -> Job:
        return Job(self._http, self._http.get(f"/v1/training/jobs/{quote(id, safe='')}"))

    def jobs(self, *, limit: int = 100) -> Sequence[Job]:
        """The newest first."""
        found = self._http.get("/v1/training/jobs", {"limit": str(limit)})["data"]
        return [Job(self._http, one) for one in found]

    def events(self, id: str, *, after: int = 0) -> Iterator[Object]:
        """What has happened to a job so far."""
        path = f"/v1/training/jobs/{quote(id, safe='')}/events"
        while True:
            page = self._http.get(path, {"after": str(after), "limit": "1000"})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = page["data"][-1]["number"]

    # --- versions ------------------------------------------------------------------------------

    def push(self, model: str, network: Any, *, deploy: bool = False, licence: str = "") -> Object:
        """Registers a network that was trained elsewhere as the name's next version.

        Args:
            network: a path (``.keras``, ``.onnx`` …), or a Keras model.
        """
        upload = self._uploaded(network)
        body = {"name": model, "upload": upload, "deploy": deploy, "licence": licence}
        found: Object = self._http.post("/v1/models", body)
        return found

    def versions(self, model: str) -> Sequence[Object]:
        """All versions with their cards, the oldest first."""
        found: Sequence[Object] = self._http.get(_versions(model))["data"]
        return found

    def promote(self, model: str, version: int) -> Object:
        """Has a version served in place of whichever is."""
        found: Object = self._http.post(f"{_versions(model)}/{version}/promote", {})
        return found

    def _dataset(self, model: str, data: Any, target: str | None) -> str:
        if isinstance(data, Dataset):
            return data.id
        if isinstance(data, str) and data.startswith("ds_"):
            return data
        name = f"{model} data" if isinstance(data, Mapping) else Path(data).name
        return self._datasets.upload(data, name=name, target=target).id

    def network(self, network: Any) -> Object:
        """A Keras model, its JSON or a path of a ``.keras`` file as the API takes it."""
        if isinstance(network, Mapping):
            return {"config": dict(network)} if "class_name" in network else dict(network)
        if isinstance(network, str) and network.lstrip().startswith("{"):
            return {"config": json.loads(network)}
        return {"upload": self._uploaded(network)}

    def _uploaded(self, network: Any) -> str:
        if isinstance(network, str | os.PathLike):
            return self._datasets.send(Path(network))
        with tempfile.TemporaryDirectory(prefix="openmaas-") as folder:
            path = Path(folder) / "model.keras"
            network.save(path)  # a Keras model, of whichever backend
            return self._datasets.send(path)


def _versions(model: str) -> str:
    return f"/v1/models/{quote(model, safe='')}/versions"

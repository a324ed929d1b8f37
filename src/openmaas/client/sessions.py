"""Sessions through the client: a training loop here, whose compute runs on the server.

with client.sessions.open(network, loss="sparse_categorical_crossentropy") as session:
    for x, y in batches:
        loss = session.forward_backward(x, y).loss
        session.optim_step(learning_rate=1e-3)
    session.publish(deploy=True)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

from openmaas.client.arrays import Array, array, inputs
from openmaas.client.connection import Connection
from openmaas.client.pipeline import Pending, Pipeline

Object = dict[str, Any]
PATH = "/v1/training/sessions"


class Answer:
    """What a call came to: ``step``, and what its kind tells (``loss``, ``outputs`` …).

    ``resumed_from_step`` is given where the session had been put away, or its process had died:
    what was done after that step is not there any more.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = {"resumed_from_step": None, **told}
        if isinstance(self._told.get("outputs"), dict):
            self._told["outputs"] = Array.of(self._told["outputs"])

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_told"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return f"Answer({self._told})"


class Session:
    """A network on the server, of which every step is a call.

    A method with ``_async`` returns at once; ``result()`` of what it returns waits. Calls are made
    in the order in which they were asked for. When one fails, those that were asked for before its
    error was seen (by ``result()``) fail too: none is made as if nothing had happened.

    Arrays are numpy's, or of anything that numpy can read, or nested lists.
    """

    def __init__(self, http: Connection, lane: Callable[[], Connection], told: Object) -> None:
        self._http = http
        self._told = told
        self._pipeline = Pipeline(lane, f"{PATH}/{told['id']}/calls", told.get("sequence") or 1)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session({self.id}, {self._told['model']}, step {self.step})"

    @property
    def id(self) -> str:
        found: str = self._told["id"]
        return found

    @property
    def step(self) -> int:
        """Steps of the optimizer, as of the last answer."""
        return max(self._pipeline.step, 0) if self._pipeline.step >= 0 else int(self._told["step"])

    # --- the three steps -----------------------------------------------------------------------

    def forward(self, x: Any = None, y: Any = None, **more: Any) -> Answer:
        """``outputs``, ``loss`` and ``per_example`` loss, as in use: nothing is learned.

        Args:
            more: ``rows`` (numbers of the data set's rows, in place of x and y), ``weights`` (of
                each row's loss).
        """
        return self._call("forward", x, y, encoding="base64", **more).result()

    def forward_backward(self, x: Any = None, y: Any = None, **more: Any) -> Answer:
        """Adds the gradients of a batch: ``loss``, and ``gradient_norms`` of each layer.

        Args:
            more: as ``forward``, and ``per_example=True`` for the loss of each row.
        """
        return self.forward_backward_async(x, y, **more).result()

    def forward_backward_async(self, x: Any = None, y: Any = None, **more: Any) -> Pending[Answer]:
        return self._call("forward_backward", x, y, **more)

    def optim_step(
        self, *, learning_rate: float | None = None, clip_norm: float | None = None
    ) -> Answer:
        """Applies the gradients, the mean over all rows since the last step, and zeroes them.

        Args:
            learning_rate: of this step; ``None``: the optimizer's own.
            clip_norm: of all gradients together.
        """
        return self.optim_step_async(learning_rate=learning_rate, clip_norm=clip_norm).result()

    def optim_step_async(
        self, *, learning_rate: float | None = None, clip_norm: float | None = None
    ) -> Pending[Answer]:
        return self._call("optim_step", learning_rate=learning_rate, clip_norm=clip_norm)

    def predict(self, x: Any = None, *, rows: Sequence[int] | None = None) -> Array:
        """The network's outputs."""
        found: Array = self._call("predict", x, rows=rows, encoding="base64").result().outputs
        return found

    # --- weights and checkpoints ----------------------------------------------------------------

    def weights(self, names: Sequence[str] = ()) -> dict[str, Array]:
        """By name; all, or those named."""
        return self._arrays("weights", names)

    def gradients(self, names: Sequence[str] = ()) -> dict[str, Array]:
        """Those that wait for the next step, by the names of their weights."""
        return self._arrays("gradients", names)

    def save(self, name: str = "last") -> Answer:
        """Writes a checkpoint, also of gradients that wait."""
        return self._call("save_checkpoint", name=name).result()

    def load(self, name: str = "last") -> Answer:
        """Goes back to a checkpoint."""
        return self._call("load_checkpoint", name=name).result()

    def publish(
        self, model: str | None = None, *, deploy: bool = False, description: str = ""
    ) -> Object:
        """Registers the network as it is as a version of a model (``None``: the session's own).

        Args:
            deploy: serve it at once.
        """
        self._pipeline.drain()
        body: Object = {"deploy": deploy, "description": description}
        if model is not None:
            body["model"] = model
        found: Object = self._http.post(f"{PATH}/{self.id}/publish", body)
        return found

    # --- the session itself ---------------------------------------------------------------------

    def resume(self) -> int:
        """Goes on after a failure, or at another place in time: the step that it is at."""
        self._told = self._http.post(f"{PATH}/{self.id}/resume", {})
        self._pipeline.restart(self._told["sequence"], self._told["step"])
        return self.step

    def refresh(self) -> Object:
        """What the server tells of it: ``state``, ``seconds`` …"""
        found: Object = self._http.get(f"{PATH}/{self.id}")
        return found

    def leave(self) -> None:
        """Ends this end alone: it can be had again by its id."""
        self._pipeline.close()

    def close(self) -> None:
        """Ends it for good; its checkpoints are removed."""
        self._pipeline.close()
        self._http.delete(f"{PATH}/{self.id}")

    def _call(self, kind: str, x: Any = None, y: Any = None, **more: Any) -> Pending[Answer]:
        call = {"call": kind, **{name: one for name, one in more.items() if one is not None}}
        if x is not None:
            call["inputs"] = inputs(x)
        if y is not None:
            call["targets"] = array(y)
        if "weights" in call:
            call["weights"] = array(call["weights"])
        if "rows" in call:
            call["rows"] = [int(one) for one in call["rows"]]
        return self._pipeline.send(json.dumps(call), Answer)

    def _arrays(self, kind: str, names: Sequence[str]) -> dict[str, Array]:
        found = self._call(kind, names=list(names), encoding="base64").result()
        return {one["name"]: Array.of(one) for one in found.data}


class Sessions:
    """What ``client.sessions`` is."""

    def __init__(
        self, http: Connection, lane: Callable[[], Connection], network: Callable[[Any], Object]
    ) -> None:
        self._http = http
        self._lane = lane
        self._network = network

    def open(self, network: Any = None, *, model: str = "session", **session: Any) -> Session:
        """Opens one on a network.

        Args:
            network: a Keras model, its JSON, or a path of a ``.keras`` file.
            model: the name under which ``publish`` registers it.
            session: ``loss``; ``optimizer`` (a name, or ``{"name": …, "learning_rate": …}``),
                ``seed``, ``dtype`` (float32 or float64), ``idle_seconds``; ``dataset`` (its id, or
                itself), ``inputs`` and ``target``; ``recipe`` and ``parameters`` in place of a
                network; ``privacy`` (``epsilon``, ``delta``, ``steps``, ``batch_size`` …): the
                server draws the rows, and ``forward_backward`` is called without any.
        """
        body: Object = {name: one for name, one in session.items() if one is not None}
        if hasattr(body.get("dataset"), "id"):
            body["dataset"] = body["dataset"].id
        if network is not None:
            body["network"] = self._network(network)
        return self._session(self._http.post(PATH, {"model": model, **body}))

    def get(self, id: str) -> Session:
        """One that was left; it is resumed if it had been put away."""
        return self._session(self._http.post(f"{PATH}/{quote(id, safe='')}/resume", {}))

    def list(self) -> Iterator[Object]:
        """The newest first."""
        before: dict[str, str] = {}
        while True:
            page = self._http.get(PATH, {"limit": "100", **before})
            yield from page["data"]
            if not page["has_more"]:
                return
            before = {"before": page["last_id"]}

    def _session(self, told: Object) -> Session:
        return Session(self._http, self._lane, told)

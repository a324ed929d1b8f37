"""Logs and metrics. Neither ever holds a prompt, an answer or a key."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from openmaas.redaction.policy import KINDS

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Telemetry:
    """The server's metrics, under the names that dashboards of model servers chart."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        model = ["model"]

        def counter(name: str, text: str, labels: Iterable[str] = model) -> Counter:
            return Counter(f"openmaas_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(
                f"openmaas_{name}", text, model, registry=self.registry, buckets=SECONDS
            )

        self._requests = counter("requests", "Finished requests", ["model", "outcome"])
        self._prompt = counter("prompt_tokens", "Input tokens")
        self._generated = counter("generation_tokens", "Output tokens")
        self._rows = counter("rows", "Rows predicted")
        self._restarts = counter("worker_restarts", "Workers that died")
        self._first = histogram("time_to_first_token_seconds", "Until the first event")
        self._between = histogram("inter_token_latency_seconds", "Mean time per output token")
        self._whole = histogram("e2e_request_latency_seconds", "Until the last event")
        self._running = Gauge(
            "openmaas_num_requests_running", "Requests being answered", model,
            registry=self.registry,
        )  # fmt: skip
        self._waiting = Gauge(
            "openmaas_num_requests_waiting", "Requests with no answer yet", model,
            registry=self.registry,
        )  # fmt: skip
        self._memory = Gauge(
            "openmaas_model_memory_bytes", "Resident bytes of a model's workers", model,
            registry=self.registry,
        )  # fmt: skip
        self._replicas = Gauge(
            "openmaas_model_replicas", "Workers of a model", model, registry=self.registry
        )
        self._redacted = counter(
            "redacted",
            "Personal data that was found, by kind; a tenant's own kinds together",
            ["kind", "direction", "action"],
        )
        self._budget = Gauge(
            "openmaas_memory_budget_bytes", "That all workers may take", registry=self.registry
        )
        self._of: dict[str, _OfModel] = {}

    def finished(
        self,
        model: str,
        outcome: str,
        *,
        started: float,
        first_event: float | None,
        tokens: tuple[int, int],
        rows: int,
    ) -> None:
        """Counts a request that ended.

        Args:
            outcome: "ok" or an error's code.
            started, first_event: on ``time.monotonic()``'s clock.
            tokens: input and output.
        """
        of = self._of.get(model) or self._of.setdefault(model, _OfModel(self, model))
        now = time.monotonic()
        if outcome == "ok":
            of.ok.inc()
        else:
            self._requests.labels(model, outcome).inc()
        of.whole.observe(now - started)
        if rows:
            of.rows.inc(rows)
        if tokens[0]:
            of.prompt.inc(tokens[0])
        if tokens[1] and first_event is not None:
            of.generated.inc(tokens[1])
            of.first.observe(first_event - started)
            if tokens[1] > 1:
                of.between.observe((now - first_event) / (tokens[1] - 1))

    def redacted(self, kinds: Mapping[str, int], direction: str, action: str) -> None:
        """Counts personal data.

        Args:
            kinds: how often each was found.
            direction: "request" or "answer".
            action: what was done about it.
        """
        for kind, count in kinds.items():
            # What a tenant calls its own kinds is the tenant's.
            self._redacted.labels(kind if kind in KINDS else "own", direction, action).inc(count)

    def restarted(self, model: str) -> None:
        self._restarts.labels(model).inc()

    def in_flight(self, model: str, running: int, waiting: int) -> None:
        """Sets the gauges; called before each scrape."""
        self._running.labels(model).set(running)
        self._waiting.labels(model).set(waiting)

    def resident(self, model: str, replicas: int, memory: int) -> None:
        """Sets what a model takes; called before each scrape."""
        self._replicas.labels(model).set(replicas)
        self._memory.labels(model).set(memory)

    def budget(self, bytes_: int) -> None:
        self._budget.set(bytes_)

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self.registry)


class _OfModel:
    """One model's children: looking labels up costs more than counting."""

    def __init__(self, telemetry: Telemetry, model: str) -> None:
        self.ok = telemetry._requests.labels(model, "ok")
        self.whole = telemetry._whole.labels(model)
        self.rows = telemetry._rows.labels(model)
        self.prompt = telemetry._prompt.labels(model)
        self.generated = telemetry._generated.labels(model)
        self.first = telemetry._first.labels(model)
        self.between = telemetry._between.labels(model)


def configure_logging(level: str) -> None:
    """One line per event on standard error."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for chatty in ("alembic", "httpx", "httpcore", "filelock", "huggingface_hub"):
        logging.getLogger(chatty).setLevel("WARNING")

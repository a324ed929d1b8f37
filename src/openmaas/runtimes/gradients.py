"""Gradients of what is served: which parts of an input one number of the answer is due to.

The same stored graph that OpenVINO serves is computed by JAX, operation by operation, whatever
framework it came from; so exactly the served weights are explained.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openmaas.errors import ArtifactRefused, ConfigurationError, InvalidRequest, OpenMaaSError
from openmaas.inference import Answer, Attribute, Failure, Request
from openmaas.runtimes import openvino_cpu as cpu
from openmaas.runtimes.measured import Measured

if TYPE_CHECKING:
    from openmaas.runtimes.gradients_rows import TensorGradients
    from openmaas.runtimes.gradients_texts import TextGradients

OPTIONS = ("threads", "truncate")
MISSING = 'gradients are computed by JAX, which is not installed: pip install "openmaas[train]"'


def open(folder: Path, options: dict[str, Any]) -> Gradients:
    """Reads an artifact's graph, and compares it with the served network on a probe.

    Args:
        folder: of an artifact ``openvino-ir``, ``openvino-tabular`` or ``openvino-classifier``.
        options: ``threads`` (default: all) and, of classifiers, ``truncate`` (see
            ``openvino_texts.load``).

    Raises:
        ConfigurationError: JAX is missing, or an option is unknown or out of range.
        ArtifactRefused: another format, a part that is missing or damaged, or an operation or
            use of whole numbers that has no gradients here.
    """
    cpu.known_options(options, OPTIONS)
    _load_jax(cpu.threads_option(options))
    kind = cpu.read_manifest(folder).get("format")
    if kind == "openvino-classifier":
        from openmaas.runtimes.gradients_texts import TextGradients

        return Gradients(TextGradients(folder, options))
    if "truncate" in options:
        raise ConfigurationError("option truncate is for classifiers of texts")
    from openmaas.runtimes.gradients_rows import TabularGradients, TensorGradients

    if kind == "openvino-tabular":
        return Gradients(TabularGradients(folder, options))
    if kind == "openvino-ir":
        return Gradients(TensorGradients(folder, options))
    raise ArtifactRefused(f"an artifact of format {kind!r} has no gradients here")


class Gradients:
    """A ``BatchRuntime`` that answers ``Attribute`` alone, one row or text a request."""

    def __init__(self, network: TextGradients | TensorGradients) -> None:
        self._network = network
        self.info = network.info
        self._asked = Measured(self._read)

    def size(self, request: Request) -> int:
        """Rows that go through the network, at the least.

        Raises:
            InvalidRequest: the request does not fit this network, or a number is out of range.
        """
        if not isinstance(request, Attribute):
            raise InvalidRequest("this process answers what gradients say only", param="model")
        self._asked(request)
        return 2 if request.method == "saliency" else request.steps + 1

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """One explanation a request, one after another."""
        from openmaas.runtimes.gradients_asked import answer

        answers: list[Answer | Failure] = []
        for request in requests:
            assert isinstance(request, Attribute)
            try:
                answers.append(answer(self._network.plans, request, self._asked(request)))
            except OpenMaaSError as error:
                answers.append(Failure(code=error.code, message=error.message, param=error.param))
            finally:
                self._asked.forget(request)
        return answers

    def close(self) -> None:
        """Frees the graph."""
        del self._network

    def _read(self, request: Attribute) -> Any:
        from openmaas.runtimes.gradients_asked import check

        check(request)
        return self._network.read(request)


def _load_jax(threads: int | None) -> None:
    """
    Raises:
        ConfigurationError: it is not installed.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if threads is not None:
        os.environ["NPROC"] = str(threads)  # what XLA's CPU client sizes its pool by
    try:
        importlib.import_module("jax")
    except ImportError:
        raise ConfigurationError(MISSING) from None

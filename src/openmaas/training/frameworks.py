"""Keras on one of its backends, with no more imported than that needs.

Keras imports TensorFlow, scikit-learn and matplotlib wherever it finds them, for what is not
used here; that takes longer than the training of a small network.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

from openmaas.training.spec import Backend

_UNUSED = ("tensorflow", "torch", "jax", "sklearn", "matplotlib", "pandas")


class _Absent(MetaPathFinder, Loader):
    """Makes modules look as if they could not be imported."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = set(names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        # Torch asks where libraries lie, and bears it that they lie nowhere, but no error.
        return ModuleSpec(name, self) if name in self.names else None

    def create_module(self, spec: ModuleSpec) -> Any:
        raise ModuleNotFoundError(f"{spec.name} is not used in this process", name=spec.name)


def load(backend: Backend, threads: int) -> Any:
    """Keras, for this process once and for all.

    Raises:
        ModuleNotFoundError: the backend is not installed.
    """
    needed = {"tensorflow": "tensorflow", "torch": "torch", "jax": "jax"}[backend]
    os.environ["KERAS_BACKEND"] = backend
    _set_threads(threads)
    absent = _Absent([name for name in _UNUSED if name != needed])
    sys.meta_path.insert(0, absent)
    importlib.import_module(needed)
    keras: Any = importlib.import_module("keras")
    if backend == "tensorflow":
        tensorflow: Any = importlib.import_module("tensorflow")
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    elif backend == "torch":
        torch: Any = importlib.import_module("torch")
        torch.set_num_threads(threads)
    return keras


def matplotlib() -> Any:
    """Matplotlib, which writes to files alone."""
    for finder in sys.meta_path:
        if isinstance(finder, _Absent):
            finder.names.discard("matplotlib")
    found: Any = importlib.import_module("matplotlib")
    found.use("agg")
    importlib.import_module("matplotlib.backends.backend_agg")
    return found


def versions(backend: Backend) -> dict[str, str]:
    """Of the libraries whose numbers a result depends on."""
    names = [
        "numpy",
        "keras",
        *({"jax": ["jax", "jaxlib"], "tensorflow": ["tensorflow"], "torch": ["torch"]}[backend]),
    ]
    return {
        name: str(getattr(module, "__version__", "?"))
        for name in names
        if (module := sys.modules.get(name)) is not None
    }


def _set_threads(threads: int) -> None:
    text = str(threads)
    os.environ["OMP_NUM_THREADS"] = text
    os.environ["NPROC"] = text  # what XLA's CPU client sizes its pool by
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

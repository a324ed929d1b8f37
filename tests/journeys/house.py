"""A server of its own, trained on and asked through its API alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.processes import ServerProcess, serving

from openmaas.client import Client


@contextlib.contextmanager
def client_of(data: Path) -> Iterator[tuple[Client, ServerProcess]]:
    data.mkdir(exist_ok=True)
    with serving(data) as server, Client(server.url, server.key, timeout=120) as client:
        yield client, server


def parted(
    rows: int, share: float = 0.2, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of rows that are uploaded, and of those that the server never sees to learn from."""
    order = np.random.default_rng(seed).permutation(rows)
    kept = int(rows * share)
    return order[kept:], order[:kept]

"""A server of echo models whose faults can be switched on, and requests to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import deploy_echo
from tests.language_folders import gemma_folder
from tests.processes import ServerProcess, serving
from tests.stores import deploy

__all__ = ["gemma_folder"]


@contextlib.contextmanager
def echoes(data: Path, **env: str) -> Iterator[ServerProcess]:
    """Chat models ``fast`` and ``slow`` (20 tokens/s), and ``digits``."""
    deploy_echo(data, "fast")
    deploy_echo(data, "slow", tokens_per_second=20, token_log=str(data / "tokens.jsonl"))
    deploy(data, "digits")
    with serving(data, **env) as running:
        yield running


@pytest.fixture
def faulty(data: Path) -> Iterator[ServerProcess]:
    """Whose requests end after 3 s."""
    with echoes(data, OPENMAAS_LIMITS_REQUEST_SECONDS="3") as running:
        yield running


@pytest.fixture
def patient(data: Path) -> Iterator[ServerProcess]:
    """With the default time limit."""
    with echoes(data) as running:
        yield running

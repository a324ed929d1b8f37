from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.encryption.keys import OPENED


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Databases of a test's keyrings end with it."""
    yield
    while OPENED:
        OPENED.pop().close()

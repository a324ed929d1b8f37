"""What ``size`` read of a request, kept until ``run`` needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

# Requests that were measured and then given up by their callers leave what was read behind.
REMEMBERED = 4096

Asked = TypeVar("Asked")
Found = TypeVar("Found")


class Measured(Generic[Asked, Found]):
    """Reads a request once: id → (the request, so that the id stays its own, and what was read)."""

    def __init__(self, read: Callable[[Asked], Found]) -> None:
        self._read = read
        self._kept: dict[int, tuple[Asked, Found]] = {}

    def __call__(self, request: Asked) -> Found:
        known = self._kept.get(id(request))
        if known is not None:
            return known[1]
        found = self._read(request)
        while len(self._kept) >= REMEMBERED:
            del self._kept[next(iter(self._kept))]
        self._kept[id(request)] = (request, found)
        return found

    def forget(self, request: Asked) -> None:
        self._kept.pop(id(request), None)

    def __len__(self) -> int:
        return len(self._kept)

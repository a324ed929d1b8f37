"""A model as a game: what it answers when only some parts of its input are there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]  # [coalitions, parts]: which are there
Values = NDArray[np.float64]  # [coalitions, outputs]
Play = Callable[[Masks], Awaitable[Values]]
Progress = Callable[[int, int], None]  # passes so far, and of how many at the most

REMEMBERED = 1 << 16  # coalitions
SLICE = 256  # coalitions that are looked up in one go
PAUSE = 2.0  # where others call the model: of the time that a question took, until the next


class Shares(NamedTuple):
    """Of each part its share in each output."""

    values: Values  # [parts, outputs]
    low: Values | None = None  # 95 % intervals, where samples were drawn
    high: Values | None = None
    baseline: Values | None = None  # [outputs]: what is answered where no part is there
    instance: Values | None = None  # … and where all are

    @property
    def error(self) -> Values | None:
        """|shares added up − (instance − baseline)| of each output."""
        if self.baseline is None or self.instance is None:
            return None
        gap: Values = np.abs(self.values.sum(0) - (self.instance - self.baseline))
        return gap


class Game:
    """Asks a model about coalitions, many at a time, and about none twice.

    Args:
        play: asks the model.
        chunk: coalitions of one question …
        small: … and of one where others call the model meanwhile.
        busy: whether they do.
        most: passes that it will take at the most, for ``progress``.

    Attributes:
        passes: coalitions that the model was asked about.
    """

    def __init__(
        self,
        parts: int,
        play: Play,
        *,
        chunk: int = 64,
        small: int = 1,
        busy: Callable[[], bool] = lambda: False,
        most: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.parts = parts
        self.passes = 0
        self._play = play
        self._chunk = chunk
        self._small = min(small, chunk)
        self._busy = busy
        self._most = most
        self._progress = progress
        self._known: dict[bytes, Values] = {}

    async def values(self, masks: Masks) -> Values:
        """[coalitions, outputs], in the order of the masks."""
        found = []
        for at in range(0, len(masks), SLICE):
            found.append(await self._values(masks[at : at + SLICE]))
            await asyncio.sleep(0)  # others are answered meanwhile
        return np.concatenate(found)

    async def _values(self, masks: Masks) -> Values:
        keys = [row.tobytes() for row in np.packbits(masks, axis=1)]
        missing: dict[bytes, int] = {}
        for at, key in enumerate(keys):
            if key not in self._known:
                missing.setdefault(key, at)
        asked, places = list(missing), list(missing.values())
        at = 0
        while at < len(asked):
            busy, began = self._busy(), time.monotonic()
            end = at + (self._small if busy else self._chunk)
            rows = await self._play(masks[places[at:end]])
            self.passes += len(rows)
            self._known.update(zip(asked[at:end], rows, strict=True))
            at = end
            if self._progress is not None:
                self._progress(self.passes, max(self._most, self.passes))
            if busy:
                await asyncio.sleep(PAUSE * (time.monotonic() - began))
        found: Values = np.stack([self._known[key] for key in keys])
        if len(self._known) > REMEMBERED:
            self._known.clear()
        return found

    async def ends(self) -> tuple[Values, Values]:
        """[outputs] where no part is there, and where all are."""
        masks = np.zeros((2, self.parts), np.bool_)
        masks[1] = True
        baseline, instance = await self.values(masks)
        return baseline, instance


def all_masks(parts: int) -> Masks:
    """Every coalition: [2^parts, parts]; row r has the parts whose bits are set in r."""
    rows = np.arange(1 << parts)[:, None] >> np.arange(parts)
    kept: Masks = (rows & 1).astype(np.bool_)
    return kept

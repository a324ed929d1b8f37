"""Occlusion: what the answer loses when one part alone is taken away.

Source: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
"""

from __future__ import annotations

import numpy as np

from openmaas.explaining.game import Game, Shares

SOURCE = "Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks"


def passes(parts: int) -> int:
    """Coalitions that are asked about."""
    return parts + 2


async def occlusion(game: Game) -> Shares:
    """f(all) − f(all but one), of each part. The shares need not add up to the difference."""
    baseline, instance = await game.ends()
    without = await game.values(~np.eye(game.parts, dtype=np.bool_))
    return Shares(instance - without, baseline=baseline, instance=instance)

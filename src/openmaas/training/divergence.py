"""A word on why a loss is no number any more."""

from __future__ import annotations

import numpy as np

from openmaas.training.loop import Diverged
from openmaas.training.rows import Array, Rows

LARGE = 100.0  # inputs beyond it are hardly scaled
LOOKED_AT = 10_000  # rows
HIGH_RATE = 0.05


def explain(error: Diverged, rows: Rows) -> str:
    """What happened where, and what is the likeliest reason, the surest first."""
    first, last = error.steps
    where = f"step {first}" if first == last else f"steps {first} to {last}"
    head = (
        f"The loss became no finite number in epoch {error.epoch} ({where}); the learning rate "
        f"was {error.rate:g}."
    )
    sample = rows.take(np.arange(min(rows.size, LOOKED_AT)))
    floats = [one for one in [*sample.inputs, sample.targets] if one.dtype.kind == "f"]
    missing = sum(int((~np.isfinite(one)).sum()) for one in floats)
    if missing:
        return f"{head} {missing} of the first rows' numbers are NaN or infinite: clean the data."
    advice = []
    low, high = _range(sample.inputs)
    if max(abs(low), abs(high)) > LARGE:
        advice.append(f"inputs go from {low:g} to {high:g}: scale them to about −1 to 1")
    if sample.targets.dtype.kind == "f":
        low, high = _range([sample.targets])
        if max(abs(low), abs(high)) > LARGE:
            advice.append(f"targets go from {low:g} to {high:g}: scale them")
    lower = f"take a learning rate of {error.rate / 10:g} or less"
    advice.insert(0 if error.rate >= HIGH_RATE else len(advice), lower)
    advice.append("or clip the gradients (optimizer.clip_norm)")
    return f"{head} Most likely: {'; '.join(advice)}."


def _range(arrays: list[Array]) -> tuple[float, float]:
    lows = [float(one.min()) for one in arrays if one.size]
    highs = [float(one.max()) for one in arrays if one.size]
    return min(lows, default=0.0), max(highs, default=0.0)

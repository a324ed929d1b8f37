"""A network that has learnt nothing: copies of artifacts with random weights.

Source: Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov

MODEL = "openvino_model.xml"
Which = Literal["all", "last"]


def copy(folder: Path, into: Path, which: Which, seed: int) -> int:
    """Copies an artifact. Each array of weights is drawn from a normal distribution of its mean and
    its standard deviation, without the sign where all its numbers are positive. Single numbers,
    such as scales, stay.

    Args:
        into: a folder that is not there yet.
        which: all arrays, or those of the last layer alone.

    Returns:
        How many arrays are random.
    """
    into.mkdir()
    for path in folder.iterdir():
        if path.suffix not in (".xml", ".bin"):
            shutil.copy(path, into / path.name)
    core = ov.Core()
    model = core.read_model(folder / MODEL)
    chance = np.random.default_rng(seed)
    weights = _weights(model)
    if which == "last":
        first = max(at for at, one in enumerate(weights) if one.data.squeeze().ndim > 1)
        weights = weights[first:]
    for one in weights:
        values = one.data
        drawn = chance.normal(values.mean(), values.std(), values.shape).astype(values.dtype)
        if (values > 0).all():  # variances have to stay positive
            drawn = np.abs(drawn)
        made = ov.opset13.constant(drawn, name=one.get_friendly_name())
        for reader in one.output(0).get_target_inputs():
            reader.replace_source_output(made.output(0))
    ov.save_model(model, into / MODEL, compress_to_fp16=False)
    return len(weights)


def _weights(model: Any) -> list[Any]:
    """Arrays of floating-point numbers that are not all the same, the first layers' first."""
    return [
        op
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Constant"
        and op.get_element_type().is_real()
        and op.data.size > 1
        and op.data.std() > 0
    ]

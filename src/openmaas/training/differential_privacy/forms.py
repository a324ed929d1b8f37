"""What a private job may not ask for. It imports no framework: the gateway checks with it."""

from __future__ import annotations

from openmaas.errors import InvalidRequest
from openmaas.training.spec import EarlyStopping, Fit, ReduceOnPlateau


def check(fit: Fit) -> None:
    """
    Raises:
        InvalidRequest: something of it looks at rows that are trained on, or does not run on JAX.
    """
    if fit.backend != "jax":
        raise InvalidRequest(
            f"private training is on jax; {fit.backend} has no gradients of single rows here",
            param="fit.backend",
        )
    for one in fit.callbacks or []:
        if not isinstance(one, EarlyStopping | ReduceOnPlateau):
            continue
        if not one.monitor.startswith("val_"):
            raise InvalidRequest(
                f"a callback watches {one.monitor!r} of rows that are trained on, which no noise "
                "hides; watch that of held-out rows: val_loss, val_accuracy …",
                param="fit.callbacks",
            )
    if fit.class_weight == "balanced":
        raise InvalidRequest(
            "class_weight 'balanced' is counted from the rows; say the weight of each label",
            param="fit.class_weight",
        )

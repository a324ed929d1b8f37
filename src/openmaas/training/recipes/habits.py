"""What recipes other than those of texts share."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.training import targets
from openmaas.training.data import Column, Dataset
from openmaas.training.recipes.base import SHOWN, Prepared
from openmaas.training.spec import EarlyStopping, Fit, ReduceOnPlateau


def with_validation(fit: Fit, prepared: Prepared) -> Fit:
    """A recipe's own choice, without what looks at validation rows where there are none."""
    if prepared.validation is not None:
        return fit
    watching = EarlyStopping | ReduceOnPlateau
    kept = [one for one in fit.callbacks or [] if not isinstance(one, watching)]
    return msgspec.structs.replace(fit, callbacks=kept)


def shown_rows(data: Dataset) -> NDArray[np.int64]:
    """Numbers of the rows that an export shows: ``shown`` of ``Recipe.export``."""
    for name in ("test", "validation", "train"):
        rows = data.rows(name)
        if len(rows):
            return rows[:SHOWN]
    raise InvalidRequest("the data set has no rows", param="dataset")


def the_array(data: Dataset, asked: list[str] | None, target: str) -> Column:
    """The one array to learn from.

    Raises:
        InvalidRequest: there are several, or it holds no finite numbers.
    """
    found = targets.inputs(data, asked, target)
    names = ", ".join(one.name for one in found)
    if len(found) != 1:
        raise InvalidRequest(
            f"the recipe reads one array; name it in inputs (there are: {names[:500]})",
            param="inputs",
        )
    array = data.array(found[0].name)
    if array.dtype.kind not in "fiub":
        raise InvalidRequest(f"{names} holds no numbers", param="inputs")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidRequest(f"{names} holds NaN or an infinity", param="inputs")
    return found[0]

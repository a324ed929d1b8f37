"""What the runtime of gradients answers, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmaas.inference import Attribute, Attributed
from openmaas.runtimes.gradients import Gradients


def explained(runtime: Gradients, request: Attribute) -> Attributed:
    runtime.size(request)
    (answer,) = runtime.run([request])
    assert isinstance(answer, Attributed), answer
    return answer


def values(answer: Attributed, at: int = 0) -> NDArray[Any]:
    return np.frombuffer(answer.values[at].data, "<f4").reshape(answer.values[at].shape)

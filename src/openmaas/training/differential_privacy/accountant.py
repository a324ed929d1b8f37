"""Counts in a process of its own: ``python -m openmaas.training.differential_privacy.accountant``.

What counts imports SciPy, which the gateway does not need otherwise. A ``Spent`` as JSON on the
standard input; its ε as JSON on the standard output.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

import openmaas
from openmaas.errors import TrainingFailed
from openmaas.training.differential_privacy.guarantee import Spent

SECONDS = 120.0  # that it may take
MOST_BYTES = 4096


def epsilon(spent: Spent) -> float:
    """ε of the steps of a run. It blocks for some seconds.

    Raises:
        TrainingFailed: it cannot be counted.
    """
    if spent.steps == 0:
        return 0.0
    environment = {"PYTHONPATH": str(Path(openmaas.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    environment |= {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "openmaas.training.differential_privacy.accountant"],
            input=msgspec.json.encode(spent),
            capture_output=True,
            timeout=SECONDS,
            env=environment,
            check=True,
        )
        return msgspec.json.decode(done.stdout[:MOST_BYTES], type=float)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        raise TrainingFailed(
            f"what was spent could not be counted: {type(error).__name__}"
        ) from None


def main() -> None:
    from openmaas.training.differential_privacy import accounting

    spent = msgspec.json.decode(sys.stdin.buffer.read(MOST_BYTES), type=Spent)
    made = accounting.Mechanism(spent.rate, spent.noise_multiplier)
    found = accounting.epsilon(made, spent.steps, spent.delta)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()

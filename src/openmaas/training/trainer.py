"""The process that trains: ``python -m openmaas.training.trainer FOLDER`` in a sandbox.

What it is given and leaves is in ``task.py``. It says what happens in lines on standard output;
SIGUSR1 makes it write a checkpoint and end (pause), SIGTERM makes it end at once (cancel).
Started anew in a folder with checkpoints, it goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec

from openmaas.errors import OpenMaaSError, TrainingFailed
from openmaas.training import frameworks, task
from openmaas.training.task import CANCELLED, DONE, FAILED, PAUSED, Failure, Result, Task

SAID = "@openmaas "  # before each line that is ours; frameworks print what they like


class Stopped(Exception):
    """It was asked to pause where there is nothing yet to be kept."""


class Control:
    """What the process hears and says."""

    def __init__(self, folder: Path) -> None:
        self._events = folder / task.EVENTS
        self._asked = False
        signal.signal(signal.SIGUSR1, self._ask)
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(CANCELLED))

    def say(self, **event: Any) -> None:
        line = msgspec.json.encode(event).decode()
        if event["kind"] != "step":
            with open(self._events, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        try:
            print(SAID + line, flush=True)
        except BrokenPipeError:  # whoever watched is gone, and nobody would hear of the result
            self._asked = True
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())

    def tell(self, text: str) -> None:
        self.say(kind="message", text=text)

    def pausing(self) -> bool:
        return self._asked

    def pause(self) -> None:
        """
        Raises:
            Stopped: it was asked to pause.
        """
        if self._asked:
            raise Stopped

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True


def main() -> int:
    folder = Path(sys.argv[1])
    control = Control(folder)
    try:
        return _run(folder, control)
    except OpenMaaSError as error:
        failure = Failure(error.code, error.message)
    except MemoryError:
        failure = Failure(TrainingFailed.code, "It ran out of the memory that it may use.")
    except Exception as error:
        # Whatever odd data or an odd network make a library raise ends here, in a sentence.
        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0][:500] if lines else "no reason given"
        failure = Failure(TrainingFailed.code, f"{type(error).__name__}: {reason}")
    _write(folder / task.ERROR, failure)
    return FAILED


def _run(folder: Path, control: Control) -> int:
    given = msgspec.json.decode((folder / task.TASK).read_bytes(), type=Task)
    try:
        frameworks.load(given.spec.fit.backend, given.threads)
    except ModuleNotFoundError as error:
        raise TrainingFailed(
            f"{error.name} is not installed; it comes with the train extra "
            "(or the tensorflow or convert extra, for these backends)"
        ) from None
    # Only now: it imports Keras.
    from openmaas.training.loop import Paused
    from openmaas.training.training import train

    with contextlib.suppress(Stopped, Paused):
        result = train(given, folder, control)
        _write(folder / task.RESULT, result)
        return DONE
    return PAUSED


def _write(path: Path, content: Result | Failure) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_bytes(msgspec.json.encode(content))
    scratch.replace(path)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # frameworks' threads take a second to end

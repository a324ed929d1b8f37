"""The trainer's process as the supervisor starts it, run to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

import openmaas
from openmaas.training import task
from openmaas.training.spec import JobSpec
from openmaas.training.task import Failure, Result, Task

SAID = "@openmaas "


def job(folder: Path, dataset: Path, spec: dict[str, Any], **more: Any) -> Path:
    """A job's folder; ``spec`` without its model and data set."""
    folder.mkdir(parents=True)
    wanted = msgspec.convert({"model": "m", "dataset": "data_0", **spec}, JobSpec)
    given = Task(spec=wanted, dataset=str(dataset), **more)
    (folder / task.TASK).write_bytes(msgspec.json.encode(given))
    return folder


def start(folder: Path, *readable: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "openmaas.placement.sandbox", "--write", str(folder)]
    given = msgspec.json.decode((folder / task.TASK).read_bytes(), type=Task)
    for path in (folder, Path(given.dataset), *readable):
        command += ["--read", str(path)]
    command += ["--module", "openmaas.training.trainer", "--", str(folder)]
    (folder / "tmp").mkdir(exist_ok=True)
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env={
                "PYTHONPATH": str(Path(openmaas.__file__).parent.parent),
                "HOME": str(folder / "tmp"),
                "TMPDIR": str(folder / "tmp"),
                "LANG": "C.UTF-8",
                "PATH": os.environ["PATH"],
            },
        )


def events(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """All that it says until it ends."""
    out, _ = process.communicate(timeout=300)
    return [
        msgspec.json.decode(line.removeprefix(SAID))
        for line in out.splitlines()
        if line.startswith(SAID)
    ]


def run(folder: Path, *readable: Path) -> Result:
    process = start(folder, *readable)
    events(process)
    error = folder / task.ERROR
    told = error.read_text() if error.exists() else (folder / "log").read_text()[-3000:]
    assert process.returncode == 0, told
    return msgspec.json.decode((folder / task.RESULT).read_bytes(), type=Result)


TOGETHER = """
import sys
from pathlib import Path
import msgspec
from openmaas.errors import OpenMaaSError
from openmaas.training import frameworks, task
frameworks.load("jax", 1)
from openmaas.training.training import train

class Control:
    def say(self, **event): pass
    def tell(self, text): pass
    def pausing(self): return False
    def pause(self): pass

for folder in map(Path, sys.argv[1:]):
    given = msgspec.json.decode((folder / task.TASK).read_bytes(), type=task.Task)
    try:
        path, told = folder / task.RESULT, train(given, folder, Control())
    except OpenMaaSError as error:
        path, told = folder / task.ERROR, task.Failure(error.code, error.message)
    path.write_bytes(msgspec.json.encode(told))
"""


def run_together(folders: list[Path]) -> list[Result | Failure]:
    """As ``run``, but all in one process, unconfined: to start one takes seconds."""
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER, *map(str, folders)],
        env={
            "PYTHONPATH": str(Path(openmaas.__file__).parent.parent),
            "HOME": str(folders[0]),
            "PATH": os.environ["PATH"],
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [
        msgspec.json.decode((folder / task.RESULT).read_bytes(), type=Result)
        if (folder / task.RESULT).exists()
        else msgspec.json.decode((folder / task.ERROR).read_bytes(), type=Failure)
        for folder in folders
    ]

"""The doctor looks at this very machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from openmaas.doctor import ENGINES, EXTRAS
from tests.cli.test_errors import run


def test_a_machine_that_can_serve(tmp_path: Path) -> None:
    done = run(tmp_path / "data", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for subject in (
        *ENGINES,
        *EXTRAS,
        "Python",
        "memory",
        "data folder",
        "OpenVINO devices",
        "sandbox",
    ):
        assert f"✓ {subject}" in done.stdout or f"! {subject}" in done.stdout
    assert not (tmp_path / "data").exists()  # looking changes nothing


def test_a_missing_engine_is_an_error_with_the_command_that_mends_it(tmp_path: Path) -> None:
    # An interpreter that finds no engine: a module of that name that fails at import.
    (tmp_path / "openvino.py").write_text("raise ImportError('not in this environment')\n")
    done = run(tmp_path / "data", "doctor", PYTHONPATH=_path(tmp_path))
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("✗ openvino ")]
    assert "not in this environment" in line
    assert "make serve" in done.stdout


def test_an_engine_that_crashes_the_interpreter_does_not_crash_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("import os, signal; os.kill(os.getpid(), 4)\n")
    done = run(tmp_path / "data", "doctor", PYTHONPATH=_path(tmp_path))
    assert done.returncode == 1
    assert "crashed with signal 4" in done.stdout


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    done = run(Path("/proc/openmaas"), "doctor")
    assert done.returncode == 1
    assert "✗ data folder" in done.stdout


def _path(folder: Path) -> str:
    """The module search path with a folder in front."""
    have = subprocess.run(
        [sys.executable, "-c", "import sys; print(':'.join(p for p in sys.path if p))"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    return f"{folder}:{have.stdout.strip()}"

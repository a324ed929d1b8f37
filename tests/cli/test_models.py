"""Models are pulled once, pushed, shown, listed and removed, all on a real data folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from openmaas.registry.catalog import SHIPPED
from tests.cli.test_errors import refused, run
from tests.processes import cli

DIGITS = SHIPPED.parent / "starter" / "digits.onnx"


def test_what_is_pulled_is_listed_and_shown(data: Path) -> None:
    assert "digits" in cli(data, "models", "list")
    shown = cli(data, "models", "show", "digits")
    assert "FP32 [-1, 64]" in shown
    assert "Apache-2.0" in shown
    assert "largest difference" in shown


def test_pulling_again_changes_nothing(data: Path) -> None:
    before = cli(data, "models", "list")
    done = run(data, "models", "pull", "digits")
    assert done.returncode == 0
    assert "is here already" in done.stderr
    assert cli(data, "models", "list") == before


def test_the_catalog_names_licence_and_size_of_everything(data: Path) -> None:
    listed = cli(data, "models", "list", "--catalog")
    for name in ("smollm2-135m", "minilm-l6-v2", "digits"):
        (line,) = [line for line in listed.splitlines() if line.startswith(name)]
        assert "Apache-2.0" in line
        assert "yes" in line


def test_a_pushed_file_is_the_names_next_version(data: Path, tmp_path: Path) -> None:
    cli(data, "models", "push", "mine", str(DIGITS), "--licence", "MIT", "--task", "predict")
    assert "mine version 1" in cli(data, "models", "show", "mine")
    assert "MIT" in cli(data, "models", "show", "mine")
    cli(data, "models", "push", "digits", str(DIGITS), "--licence", "MIT")
    versions = cli(data, "models", "list").splitlines()
    assert sum(line.startswith("digits") for line in versions) == 2


def test_the_same_file_twice_is_one_version(data: Path) -> None:
    cli(data, "models", "push", "mine", str(DIGITS))
    cli(data, "models", "push", "mine", str(DIGITS))
    listed = cli(data, "models", "list").splitlines()
    assert sum(line.startswith("mine") for line in listed) == 1


def test_a_model_for_another_task_is_refused_and_leaves_nothing(data: Path) -> None:
    before = sorted(path.name for path in (data / "artifacts").iterdir())
    words = refused_last(run(data, "models", "push", "mine", str(DIGITS), "--task", "chat"))
    assert "predict" in words
    assert "mine" not in cli(data, "models", "list")
    assert sorted(path.name for path in (data / "artifacts").iterdir()) == before


def test_a_file_that_is_not_what_its_sum_says_is_refused(data: Path) -> None:
    wrong = "0" * 64
    words = refused_last(run(data, "models", "push", "mine", str(DIGITS), "--sha256", wrong))
    assert "sha256" in words


def test_a_pickle_is_refused_by_its_content(data: Path, tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "model.onnx"
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    assert "pickle" in refused_last(run(data, "models", "push", "mine", str(path))).lower()


def test_https_sources_are_off(data: Path) -> None:
    words = refused_last(run(data, "models", "push", "mine", "https://127.0.0.1:9/model.onnx"))
    assert "https: sources are off" in words


def test_what_is_deployed_is_not_removed(data: Path) -> None:
    cli(data, "deploy", "digits")
    assert "undeploy" in refused(run(data, "models", "remove", "digits"))
    cli(data, "undeploy", "digits")
    cli(data, "models", "remove", "digits")
    assert "digits" not in cli(data, "models", "list")
    assert [p for p in (data / "artifacts").iterdir() if not p.name.startswith(".")] == []


def test_a_version_can_be_removed_alone(data: Path) -> None:
    cli(data, "models", "push", "digits", str(DIGITS), "--licence", "MIT")
    cli(data, "models", "remove", "digits", "--version", "1")
    assert "digits version 2" in cli(data, "models", "show", "digits")


def test_a_data_folder_can_be_moved(data: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(data, tmp_path / "elsewhere"))
    assert "digits" in cli(moved, "models", "list")
    cli(moved, "deploy", "digits")


def refused_last(done: subprocess.CompletedProcess[str]) -> str:
    """The error of a command that had told of its progress before."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("name", ["../up", "a/b", "", "-x", "a" * 65, "ü", "a b"])
def test_names_that_are_no_names(data: Path, name: str) -> None:
    assert run(data, "models", "push", "--", name, str(DIGITS)).returncode == 2

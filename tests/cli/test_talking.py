"""``chat`` and ``predict`` against a real server, piped and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_errors import refused, run
from tests.processes import ServerProcess, cli

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "digits.json"


@pytest.fixture
def env(server: ServerProcess) -> dict[str, str]:
    return {"OPENMAAS_URL": server.url, "OPENMAAS_API_KEY": server.key}


def test_a_question(server: ServerProcess, env: dict[str, str]) -> None:
    answer = cli(
        server.data, "chat", "smollm2-135m", "What is gravity?",
        "--temperature", "0", "--max-tokens", "20", **env,
    )  # fmt: skip
    assert "physics" in answer


def test_a_question_from_a_pipe(server: ServerProcess, env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "openmaas.cli", "chat", "echo", "--max-tokens", "5"],
        input="Hello there\n",
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_conversation_on_a_terminal(server: ServerProcess, env: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    talk = subprocess.Popen(
        [sys.executable, "-m", "openmaas.cli", "chat", "echo", "--max-tokens", "5"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | env | {"TERM": "dumb"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        read_until(ours, b"> ")
        os.write(ours, b"Hello\n")
        assert read_until(ours, b"> ").replace(b"\r", b"").strip(b"\n> ") != b"Hello"
        os.write(ours, b"/new\n")
        read_until(ours, b"> ")
        os.write(ours, b"/quit\n")
        assert talk.wait(20) == 0
    finally:
        talk.kill()
        os.close(ours)


def read_until(descriptor: int, end: bytes) -> bytes:
    got = b""
    until = time.monotonic() + 30
    while not got.endswith(end):
        assert time.monotonic() < until, got
        got += os.read(descriptor, 4096)
    return got


def test_the_wrong_kind_of_model(server: ServerProcess, env: dict[str, str]) -> None:
    assert "chat" in refused(run(server.data, "chat", "digits", "Hello", **env))
    assert "deployed are" in refused(run(server.data, "chat", "gpt-9", "Hello", **env))


def test_without_a_key_it_says_where_keys_come_from(server: ServerProcess) -> None:
    words = refused(run(server.data, "chat", "echo", "Hello", OPENMAAS_URL=server.url))
    assert "OPENMAAS_API_KEY" in words


def test_a_wrong_key(server: ServerProcess, env: dict[str, str]) -> None:
    env["OPENMAAS_API_KEY"] = "om-wrong"
    words = refused(run(server.data, "chat", "echo", "Hello", **env))
    assert "key" in words
    assert "om-wrong" not in words


def test_a_prediction_as_a_table(server: ServerProcess, env: dict[str, str]) -> None:
    lines = cli(server.data, "predict", "digits", str(EXAMPLE), **env).splitlines()
    assert "probabilities" in lines[0]
    assert [line.split()[1] for line in lines[2:5]] == ["3", "1", "4"]


def rows() -> list[list[int]]:
    found: list[list[int]] = json.loads(EXAMPLE.read_text())["instances"]
    return found


def test_every_form_of_the_rows_gives_the_same_answer(
    server: ServerProcess, env: dict[str, str], tmp_path: Path
) -> None:
    flat = [float(value) for row in rows() for value in row]
    tensor = {"name": "pixels", "shape": [3, 64], "datatype": "FP32", "data": flat}
    titles = ",".join(f"p{i}" for i in range(64))
    body = "\n".join(",".join(map(str, row)) for row in rows())
    forms = {
        "list.json": json.dumps(rows()),
        "named.json": json.dumps({"inputs": {"pixels": rows()}}),
        "objects.json": json.dumps({"instances": [{"pixels": row} for row in rows()]}),
        "v2.json": json.dumps({"inputs": [tensor]}),
        "bare.csv": body,
        "titled.csv": f"{titles}\n{body}\n",
    }
    files = [EXAMPLE]
    for name, text in forms.items():
        files.append(tmp_path / name)
        files[-1].write_text(text)
    np.save(tmp_path / "rows.npy", np.array(rows(), np.float32))
    files.append(tmp_path / "rows.npy")
    answers = {
        file.name: json.loads(cli(server.data, "predict", "digits", str(file), "--json", **env))
        for file in files
    }
    first = np.array(answers["digits.json"]["probabilities"])
    assert first.argmax(1).tolist() == [3, 1, 4]
    for name, answer in answers.items():
        np.testing.assert_allclose(answer["probabilities"], first, atol=1e-6, err_msg=name)


def test_rows_from_standard_input(server: ServerProcess, env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "openmaas.cli", "predict", "digits", "-"],
        input=EXAMPLE.read_bytes(),
        env=os.environ | env,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_rows_of_the_wrong_shape(
    server: ServerProcess, env: dict[str, str], tmp_path: Path
) -> None:
    for text in ("[[1, 2, 3]]", "[[1], [2, 3]]", '{"inputs": {"pixel": [[1]]}}'):
        path = tmp_path / "rows.json"
        path.write_text(text)
        refused(run(server.data, "predict", "digits", str(path), **env))

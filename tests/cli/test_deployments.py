"""Deploying with and without a server, and what ``status`` shows of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.cli.test_errors import refused, run
from tests.cli.test_models import DIGITS
from tests.processes import ServerProcess, cli, serving


def line_of(model: str, status: str) -> str:
    (line,) = [line for line in status.splitlines() if line.startswith(f"{model} ")]
    return line


def predict(server: ServerProcess, model: str = "digits") -> dict[str, object]:
    body = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0] * 64}]}
    answer = server.client.post(f"/v2/models/{model}/infer", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_without_a_server_it_is_written_down(data: Path) -> None:
    said = cli(data, "deploy", "digits")
    assert "openvino_tensors" in said
    assert "openmaas serve" in said
    status = cli(data, "status")
    assert "No server runs" in status
    assert "waiting for a server" in line_of("digits", status)


def test_a_running_server_takes_it_up_and_the_command_waits(data: Path) -> None:
    with serving(data) as server:
        assert "digits is ready" in cli(data, "deploy", "digits")
        assert predict(server)["model_version"] == "1"
        line = line_of("digits", cli(data, "status"))
        assert " ready " in line
        assert str(server.worker_pid("digits")) in line.split()
        assert "MB" in line
        cli(data, "undeploy", "digits")
        server.wait_until(
            lambda: server.client.get("/v2/models/digits/ready").status_code != 200, 10
        )


def test_a_new_version_replaces_the_old_one(data: Path) -> None:
    cli(data, "deploy", "digits")
    cli(data, "models", "push", "digits", str(DIGITS), "--licence", "MIT")
    with serving(data) as server:
        assert predict(server)["model_version"] == "1"
        cli(data, "deploy", "digits")
        server.wait_until(lambda: predict(server)["model_version"] == "2", 10)
        assert "before: version 1" in cli(data, "status")
        assert "version 1 100 %" in cli(data, "rollback", "digits")
        assert predict(server)["model_version"] == "1"
        assert predict(server, "digits@1")["model_version"] == "1"
        # what was taken back is deployed no more
        server.wait_until(lambda: len(server.workers()) == 1, 10)
        assert " ready " in line_of("digits", cli(data, "status"))
        cli(data, "models", "remove", "digits", "--version", "2")


def test_an_option_that_the_runtime_does_not_know(data: Path) -> None:
    with serving(data) as server:
        assert "colour" in refused(run(data, "deploy", "digits", "--option", "colour=blue"))
        status = cli(data, "status")
        assert " broken " in line_of("digits", status)
        assert "colour" in status
        cli(data, "deploy", "digits", "--option", "batch_max_requests=8")
        predict(server)


def test_an_option_without_a_value(data: Path) -> None:
    assert "name=value" in refused(run(data, "deploy", "digits", "--option", "colour"))


def test_a_runtime_that_cannot_serve_it(data: Path) -> None:
    assert "openvino_tensors" in refused(run(data, "deploy", "digits", "--runtime", "llamacpp"))
    assert "echo" in refused(run(data, "deploy", "digits", "--runtime", "abacus"))


def test_status_counts_restarts(data: Path) -> None:
    cli(data, "deploy", "digits")
    with serving(data) as server:
        pid = server.worker_pid("digits")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

        def again() -> bool:
            line = line_of("digits", cli(data, "status"))
            return " ready " in line and str(pid) not in line.split()

        server.wait_until(again, 20)
        line = line_of("digits", cli(data, "status"))
        assert " 1 " in line.split("MB")[1][:12]

"""What ``openmaas serve`` prints, and that what it tells people to type works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.cli.test_errors import refused, run
from tests.processes import ADMIN_KEY, ServerProcess, cli, serving


def printed(server: ServerProcess) -> str:
    return server.log.read_text()


def wait_for(server: ServerProcess, text: str) -> None:
    server.wait_until(lambda: text in printed(server), 30)


def first_keys(text: str) -> list[str]:
    return re.findall(r"Admin key +(om-\S+)", text)


def test_the_first_key_is_printed_once_and_opens_everything(data: Path) -> None:
    with serving(data, OPENMAAS_ADMIN_KEY="") as server:
        (key,) = first_keys(printed(server))
        bearer = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{server.url}/metrics", headers=bearer).status_code == 200
        assert httpx.get(f"{server.url}/metrics").status_code == 401
    server.log.write_text("")
    with serving(data, OPENMAAS_ADMIN_KEY="") as server:
        assert first_keys(printed(server)) == []
        assert key not in printed(server)


def test_a_key_known_beforehand_is_never_printed(data: Path) -> None:
    with serving(data) as server:
        assert server.client.get("/metrics").status_code == 200
        assert ADMIN_KEY not in printed(server)
        assert first_keys(printed(server)) == []


def test_models_are_told_of_as_they_become_ready(data: Path) -> None:
    cli(data, "deploy", "digits")
    with serving(data) as server:
        wait_for(server, "digits is ready")


def test_a_model_that_cannot_be_served_is_told_of(data: Path) -> None:
    cli(data, "deploy", "digits", "--option", "colour=blue")
    with serving(data) as server:
        wait_for(server, "digits cannot be served")
        assert "colour" in printed(server)


def test_with_nothing_deployed_it_says_how_to_begin(data: Path) -> None:
    with serving(data) as server:
        assert "models pull --starters --deploy" in printed(server)


def test_the_commands_that_it_prints_work(server: ServerProcess, tmp_path: Path) -> None:
    """Typed into a shell as they stand, with this interpreter's ``openmaas`` on the path."""
    lines = printed(server).split("Try, in another terminal:\n")[1].splitlines()
    commands = [line.strip() for line in lines if line.startswith("  ")]
    exports, *others = commands
    assert len(others) == 3
    exports = exports.replace("<your key>", server.key)
    shim = tmp_path / "openmaas"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m openmaas.cli "$@"\n')
    shim.chmod(0o755)
    for command in others:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{exports}\n{command}"],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert done.stdout.strip()
        assert '"error"' not in done.stdout


def test_two_servers_never_share_a_data_folder(data: Path) -> None:
    with serving(data) as server:
        words = refused(run(data, "serve", "--port", "0"))
        assert str(server.process.pid) in words
        assert "--data-dir" in words
    with serving(data):
        pass  # the first one's hold ended with it


def test_a_port_that_is_taken(data: Path, tmp_path: Path) -> None:
    with serving(data) as server:
        port = server.url.rpartition(":")[2]
        assert "--port" in run(tmp_path, "serve", "--port", port).stderr

"""What the sandbox takes away is gone, for the very process and for what it starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from openmaas.placement import landlock, sandbox
from openmaas.placement.sandbox import Limits

AVAILABLE = sandbox.available()

PROBE = """
import os, resource, signal, socket, subprocess, sys
from pathlib import Path

inside, outside = Path(sys.argv[1]), Path(sys.argv[2])
port, parent = int(sys.argv[3]), int(sys.argv[4])

def attempt(name, action):
    try:
        action()
        print(name, "done")
    except (OSError, MemoryError, subprocess.CalledProcessError) as error:
        print(name, "refused")

attempt("write inside", lambda: (inside / "new").write_text("x"))
attempt("write outside", lambda: (outside / "new").write_text("x"))
attempt("change outside", lambda: (outside / "old").write_text("x"))
attempt("remove outside", lambda: (outside / "old").unlink())
attempt("truncate outside", lambda: os.truncate(outside / "old", 0))
attempt("move outside", lambda: (inside / "new").rename(outside / "moved"))
attempt("link outside", lambda: os.link(outside / "old", inside / "linked"))
attempt("symlink", lambda: (inside / "link").symlink_to("/etc/passwd"))
attempt("read outside", lambda: (outside / "old").read_text())
attempt("list outside", lambda: list(outside.iterdir()))
attempt("child", lambda: subprocess.run(["/bin/sh", "-c", f"echo x > {outside}/child"], check=True))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", port), 2).close())
attempt("listen", lambda: socket.create_server(("127.0.0.1", 0)).close())
attempt("signal", lambda: os.kill(parent, 0))
attempt("memory", lambda: bytearray(4 << 30))
print("core", resource.getrlimit(resource.RLIMIT_CORE)[0])
print("layers", os.environ["OPENMAAS_ENFORCED"])
"""


def probe(tmp_path: Path, read: Path | None = None) -> dict[str, str]:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
    (outside / "old").write_text("old")
    (inside / "probe_module.py").write_text(PROBE)
    limits = msgspec.json.encode(Limits(address_space=2 << 30, cpu_seconds=30)).decode()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "openmaas.placement.sandbox", "--write", str(inside)),
                *("--read", str(read or inside), "--limits", limits, "--module", "probe_module"),
                *("--", str(inside), str(outside), str(port), str(os.getpid())),
            ],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(inside), *sys.path])},
            cwd=inside,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    lines = (line.rpartition(" ") for line in ended.stdout.splitlines())
    return {name: result for name, _, result in lines}


def test_limits_and_layers_are_in_force(tmp_path: Path) -> None:
    found = probe(tmp_path)
    assert found["write inside"] == "done"
    assert found["memory"] == "refused"
    assert found["core"] == "0"
    assert set(found["layers"].split(",")) == set(AVAILABLE)
    assert {sandbox.LIMITS, sandbox.NO_NEW_PRIVILEGES} <= set(AVAILABLE)


@pytest.mark.skipif(landlock.abi() < 3, reason="this kernel has no Landlock")
def test_nothing_outside_is_written_or_read(tmp_path: Path) -> None:
    found = probe(tmp_path)
    for what in ("write", "change", "remove", "truncate", "move", "link", "read", "list"):
        assert found[f"{what} outside"] == "refused", what
    assert found["symlink"] == "refused"
    assert found["child"] == "refused"
    outside = tmp_path / "outside"
    assert [path.name for path in outside.iterdir()] == ["old"]
    assert (outside / "old").read_text() == "old"


@pytest.mark.skipif(
    not {sandbox.NETWORK, sandbox.TCP} & set(AVAILABLE), reason="no way to take the network away"
)
def test_the_network_is_gone(tmp_path: Path) -> None:
    assert probe(tmp_path)["connect"] == "refused"


@pytest.mark.skipif(sandbox.SCOPE not in AVAILABLE, reason="this kernel has no Landlock scopes")
def test_others_cannot_be_signalled(tmp_path: Path) -> None:
    assert probe(tmp_path)["signal"] == "refused"


def test_where_it_was_started_is_not_readable_for_that(tmp_path: Path) -> None:
    (tmp_path / "master.key").write_text("key")
    script = "open('master.key').read()"
    command = [sys.executable, "-m", "openmaas.placement.sandbox", "--module", "timeit", "--"]
    done = subprocess.run(
        [*command, "-n1", "-r1", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if sandbox.READS in AVAILABLE:
        assert "PermissionError" in done.stderr
    assert done.returncode != 0 or sandbox.READS not in AVAILABLE


def test_asking_what_there_is_changes_nothing(tmp_path: Path) -> None:
    assert sandbox.available() == AVAILABLE
    assert sandbox.enforced() == []
    (tmp_path / "still").write_text("free")

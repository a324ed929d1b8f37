"""A real PostgreSQL for tests: its own folder, its own port, stopped and started at will."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

USER = "postgres"  # initdb refuses root


def programs() -> Path | None:
    """Where Debian's package puts them, the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


class Postgres:
    """One server; each ``database()`` is a fresh one."""

    def __init__(self) -> None:
        bin_ = programs()
        if bin_ is None:
            raise RuntimeError("no PostgreSQL here: apt-get install postgresql")
        self._bin = bin_
        self._folder = Path(tempfile.mkdtemp(prefix="openmaas-pg-"))
        self._data = self._folder / "data"
        self.password = secrets.token_hex(8)
        self.port = _free_port()
        word = self._folder / "password"
        word.write_text(self.password)
        if os.getuid() == 0:
            account = pwd.getpwnam(USER)
            for path in (self._folder, word):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._run(
            "initdb", "-D", str(self._data), "-U", USER, "-A", "scram-sha-256",
            "--pwfile", str(word), "-E", "UTF8", "--no-locale",
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-l", log, "-o", options, "-w", "start")

    def stop(self, how: str = "immediate") -> None:
        """``immediate``: as if the power had gone."""
        self._run("pg_ctl", "-D", str(self._data), "-m", how, "-w", "stop")

    def url(self, name: str, port: int | None = None) -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{port or self.port}/{name}"

    def database(self) -> str:
        """A fresh database's name."""
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return name

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        as_user = {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would be held open by the server that it starts
            stderr=subprocess.DEVNULL,
            cwd="/",
            **as_user,  # type: ignore[arg-type]
        )
        assert done.returncode == 0, f"{program} {arguments}: {done.returncode}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The data folder that a command works on, and the server that may be running over it."""

from __future__ import annotations

import fcntl
import getpass
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from openmaas.config import SANDBOX_VARIABLE, Settings, load
from openmaas.errors import ConfigurationError, Conflict

if TYPE_CHECKING:
    from openmaas.app import Store
    from openmaas.audit import By

DataDir = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Folder of models, keys and deployments. [dim]\\[~/.local/share/openmaas][/]",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", envvar="OPENMAAS_CONFIG", help="Settings in TOML."),
]


def settings(config: Path | None, **overrides: Any) -> Settings:
    """
    Raises:
        ConfigurationError: see ``config.load``.
    """
    chosen = load(config, os.environ, overrides)
    os.environ[SANDBOX_VARIABLE] = chosen.sandbox  # as processes that are confined are told
    return chosen


def me() -> By:
    """Who acts at the command line, for the audit log."""
    from openmaas.audit import By

    try:
        return By(f"{getpass.getuser()} at the command line")
    except (KeyError, OSError):  # a user without a name
        return By(f"user {os.getuid()} at the command line")


def open_folder(chosen: Settings) -> Store:
    """Opens the data folder, or makes it.

    Raises:
        ConfigurationError: it cannot be made, or holds what is no database of ours.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from openmaas.app import open_store

    try:
        return open_store(chosen)
    except (OSError, SQLAlchemyError) as error:
        words = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigurationError(
            f"cannot open the data folder {chosen.data_path}: {words}; see --data-dir"
        ) from None


class Running(msgspec.Struct, frozen=True):
    """A server that holds a data folder now."""

    pid: int
    url: str
    memory_budget: int = 0  # bytes, for models


def _lock_file(folder: Path) -> Path:
    return folder / "run" / "server"


def running(folder: Path) -> Running | None:
    """The server over a data folder, if one runs."""
    try:
        with open(_lock_file(folder), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return msgspec.json.decode(file.read(), type=Running)
    except (OSError, msgspec.DecodeError):
        return None
    return None


class Hold:
    """A server's hold on its data folder; the kernel lets go of it however the server ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def announce(self, url: str, memory_budget: int) -> None:
        os.ftruncate(self._descriptor, 0)
        told = Running(os.getpid(), url, memory_budget)
        os.pwrite(self._descriptor, msgspec.json.encode(told), 0)


@contextmanager
def hold(folder: Path) -> Iterator[Hold]:
    """
    Raises:
        Conflict: another server holds it.
    """
    path = _lock_file(folder)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _locked(descriptor):
            other = running(folder)
            who = f" (process {other.pid}, {other.url})" if other else ""
            raise Conflict(
                f"another server{who} serves {folder}; stop it or take another --data-dir"
            )
        yield Hold(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    # ``running`` of another command may look at this very moment: that is over at once.
    for wait in (0.05, 0.1, 0.2, 0):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(wait)
        else:
            return True
    return False

"""Keyrings on real databases, for tests."""

from __future__ import annotations

from pathlib import Path

from openmaas.audit import By
from openmaas.database import Database, open_database
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.master import FILE, Master, MasterFile

ME = By("a test")
OPENED: list[Database] = []  # closed after each test


def keyring(folder: Path, url: str | None = None, master: Master | None = None) -> Keyring:
    """Of a data folder, with its master key in it."""
    database = open_database(folder, url)
    OPENED.append(database)
    return ring(database, folder, master)


def ring(database: Database, folder: Path, master: Master | None = None) -> Keyring:
    return Keyring(database, MasterFile(folder / FILE) if master is None else master)

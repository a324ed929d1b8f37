"""The master key: what the keys of tenants are wrapped by, and where it is kept.

It is in a file, in the environment, or with a program that asks a key service. Nothing but keys is
ever wrapped by it, so that to replace it takes a moment, however much is stored.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openmaas.config import Settings
from openmaas.disk import sync_folder
from openmaas.errors import ConfigurationError, WrongMaster

PREFIX = "master:"
KEY_BYTES = 32
NONCE_BYTES = 12
FILE = "master.key"  # in the data folder, unless the settings say where
MOST_BYTES = 1 << 16  # of a file of keys


class Context(NamedTuple):
    """What a wrapped key is, so that it cannot stand in the place of another."""

    id: str
    tenant: str
    object: str

    def encoded(self) -> bytes:
        return msgspec.json.encode(list(self))


class Master(Protocol):
    """Wraps keys of tenants. All methods block.

    Attributes:
        where: for people: where the key is.
    """

    where: str

    def begin(self, *, fresh: bool) -> None:
        """Makes sure that there is a key.

        Args:
            fresh: nothing is wrapped yet, so that one may be made.

        Raises:
            WrongMaster: it is gone.
        """

    def current(self) -> str | None:
        """The id under which it wraps now; None: a service knows, and tells when it wraps."""

    def wrap(self, secret: bytes, context: Context) -> tuple[str, bytes]:
        """The id of the key that it was wrapped by, with ``PREFIX``, and what came of it.

        Raises:
            WrongMaster: there is no key.
        """

    def unwrap(self, wrapping: str, wrapped: bytes, context: Context) -> bytes:
        """
        Raises:
            WrongMaster: the key is not here, or these bytes are not what it wrapped.
        """

    def renew(self) -> bool:
        """Makes a new key the current one, where it is kept here; whether it did."""

    def forget(self, needed: set[str]) -> None:
        """Drops keys that are neither needed nor among the newest two."""


def open_master(settings: Settings) -> Master:
    """What the settings say; nothing is read or made yet.

    Raises:
        ConfigurationError: they say it twice, or wrongly.
    """
    from openmaas.encryption.command import MasterCommand

    said = [settings.master_key_file, settings.master_key, settings.master_key_command]
    if sum(one is not None for one in said) > 1:
        raise ConfigurationError(
            "settings: one of master_key_file, master_key and master_key_command, not several"
        )
    if settings.master_key is not None:
        return MasterSecret(settings.master_key)
    if settings.master_key_command is not None:
        return MasterCommand(settings.master_key_command)
    return MasterFile(master_file(settings))


def master_file(settings: Settings) -> Path:
    """Where the file of the master key is, if it is in one."""
    if settings.master_key_file is None:
        return settings.data_path / FILE
    return Path(settings.master_key_file).expanduser().absolute()


class Ring:
    """Keys at hand: the first wraps, all unwrap."""

    def __init__(self, keys: list[bytes]) -> None:
        self.keys = {id_of(key): key for key in keys}
        self.first = next(iter(self.keys))

    def wrap(self, secret: bytes, context: Context) -> tuple[str, bytes]:
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(self.keys[self.first]).encrypt(nonce, secret, context.encoded())
        return self.first, nonce + sealed

    def unwrap(self, wrapping: str, wrapped: bytes, context: Context) -> bytes | None:
        """None: the key is not among these."""
        key = self.keys.get(wrapping)
        if key is None:
            return None
        nonce, sealed = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
        try:
            return AESGCM(key).decrypt(nonce, sealed, context.encoded())
        except (InvalidTag, ValueError):
            raise WrongMaster(
                f"key {context.id} of the database was changed, or is another's; restore the "
                "database from a backup"
            ) from None


class MasterSecret:
    """Keys that the settings bring.

    Raises:
        ConfigurationError: they are none.
    """

    where = "OPENMAAS_MASTER_KEY"

    def __init__(self, text: str) -> None:
        self._ring = Ring(read_keys(text.replace(",", "\n"), "master_key"))

    def begin(self, *, fresh: bool) -> None:
        """They are there."""

    def current(self) -> str | None:
        return self._ring.first

    def wrap(self, secret: bytes, context: Context) -> tuple[str, bytes]:
        return self._ring.wrap(secret, context)

    def unwrap(self, wrapping: str, wrapped: bytes, context: Context) -> bytes:
        found = self._ring.unwrap(wrapping, wrapped, context)
        return _found(found, wrapping, self.where)

    def renew(self) -> bool:
        return False

    def forget(self, needed: set[str]) -> None:
        """Whoever sets the environment does that."""


class MasterFile:
    """Keys in a file of its user's alone, a line of base64 each, which is read again whenever it
    was changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self._ring: Ring | None = None
        self._seen: tuple[int, int, int] | None = None

    def begin(self, *, fresh: bool) -> None:
        if self._read() is not None:
            return
        if not fresh:
            raise WrongMaster(
                f"the master key is not in {self.path}, and what tenants stored is sealed with "
                "it; put the file back from a backup, or say where it is (master_key_file)"
            )
        with contextlib.suppress(FileExistsError):  # another process was faster
            self._write([secrets.token_bytes(KEY_BYTES)], new=True)

    def current(self) -> str | None:
        ring = self._read()
        return None if ring is None else ring.first

    def wrap(self, secret: bytes, context: Context) -> tuple[str, bytes]:
        ring = self._read()
        if ring is None:
            raise WrongMaster(f"the master key is not in {self.path}")
        return ring.wrap(secret, context)

    def unwrap(self, wrapping: str, wrapped: bytes, context: Context) -> bytes:
        ring = self._read()
        found = None if ring is None else ring.unwrap(wrapping, wrapped, context)
        return _found(found, wrapping, self.where)

    def renew(self) -> bool:
        self.begin(fresh=False)
        ring = self._read()
        assert ring is not None, "begin has read it"
        self._write([secrets.token_bytes(KEY_BYTES), *ring.keys.values()])
        return True

    def forget(self, needed: set[str]) -> None:
        ring = self._read()
        if ring is None:
            return
        # A server may have wrapped by the one before at this very moment: it stays for a turn.
        kept = [key for at, (id, key) in enumerate(ring.keys.items()) if at < 2 or id in needed]
        if len(kept) < len(ring.keys):
            self._write(kept)

    def _read(self) -> Ring | None:
        """None: there is no file.

        Raises:
            ConfigurationError: it cannot be read, or holds something else.
        """
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                seen = status.st_ino, status.st_mtime_ns, status.st_size
                if self._ring is None or seen != self._seen:
                    text = file.read(MOST_BYTES).decode("ascii", "replace")
                    self._ring, self._seen = Ring(read_keys(text, str(self.path))), seen
        except FileNotFoundError:
            self._ring = None
        except OSError as error:
            raise ConfigurationError(f"cannot read {self.path}: {error.strerror}") from None
        return self._ring

    def _write(self, keys: list[bytes], *, new: bool = False) -> None:
        lines = b"".join(base64.b64encode(key) + b"\n" for key in keys)
        scratch = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(scratch, flags, 0o600), "wb") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            if new:
                os.link(scratch, self.path)  # fails where there is one
            else:
                scratch.rename(self.path)
            sync_folder(self.path.parent)
        except FileExistsError:
            raise
        except OSError as error:
            raise ConfigurationError(f"cannot write {self.path}: {error.strerror}") from None
        finally:
            scratch.unlink(missing_ok=True)


def id_of(key: bytes) -> str:
    """A master key's id, which tells nothing of it."""
    return PREFIX + hashlib.sha256(b"openmaas master key\0" + key).hexdigest()[:16]


def read_keys(text: str, place: str) -> list[bytes]:
    """Keys, a line each; the first is the current one.

    Args:
        place: for people: where they were found.

    Raises:
        ConfigurationError: there is none, or something else among them.
    """
    keys = []
    for line in text.split():
        try:
            key = base64.b64decode(line, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise ConfigurationError(
                f"{place}: a master key is {KEY_BYTES} bytes as base64: openssl rand -base64 32"
            )
        keys.append(key)
    if not keys:
        raise ConfigurationError(f"{place}: there is no key in it")
    return keys


def exposed(path: Path) -> bool:
    """Whether others than its user may read a file."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def _found(secret: bytes | None, wrapping: str, where: str) -> bytes:
    if secret is None:
        raise WrongMaster(
            f"keys of this data folder are wrapped by {wrapping}, which is not in {where}; add "
            "the key of that id as a further one (an older one unwraps only), or restore it from "
            "a backup"
        )
    return secret

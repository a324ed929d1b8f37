"""A program that wraps and unwraps keys: the way to a key service, which gives its key to nobody.

It is given one line of JSON on standard input, ``{"act": "wrap" | "unwrap", "data": BASE64,
"context": {"id", "tenant", "object"}}`` and, to unwrap, the ``"key"`` that it told, and answers
``{"data": BASE64, "key": ID}`` on standard output. ``key`` names the service's key and its version
and may be left out.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from typing import Annotated, Literal

import msgspec

from openmaas.encryption.master import PREFIX, Context
from openmaas.errors import ConfigurationError, StorageUnavailable, WrongMaster

SECONDS = 10.0
MOST_BYTES = 1 << 16  # of an answer
_DIGEST = hashlib.sha256().digest_size


class _Answer(msgspec.Struct):
    data: str
    key: Annotated[str, msgspec.Meta(max_length=500)] = ""


class MasterCommand:
    """
    Args:
        command: a program with its arguments, as a shell would read them; no shell runs it.

    Raises:
        ConfigurationError: it is none.
    """

    def __init__(self, command: str) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise ConfigurationError(f"settings: master_key_command: {error}") from None
        if not self._command:
            raise ConfigurationError("settings: master_key_command names no program")
        self.where = f"the program {self._command[0]}"

    def begin(self, *, fresh: bool) -> None:
        """The service has its key, or says so."""

    def current(self) -> str | None:
        return None

    def wrap(self, secret: bytes, context: Context) -> tuple[str, bytes]:
        # A service that does not look at the context must not make keys exchangeable.
        told = self._ask("wrap", _bound(secret, context), context, "")
        return f"{PREFIX}command:{told.key}", _decoded(told.data)

    def unwrap(self, wrapping: str, wrapped: bytes, context: Context) -> bytes:
        if not wrapping.startswith(f"{PREFIX}command:"):
            raise WrongMaster(
                f"keys of this data folder are wrapped by {wrapping}, and the settings say "
                "master_key_command; set the master key that it was before"
            )
        key = wrapping.removeprefix(f"{PREFIX}command:")
        data = _decoded(self._ask("unwrap", wrapped, context, key).data)
        secret = data[:-_DIGEST]
        if data != _bound(secret, context):
            raise WrongMaster(
                f"what {self.where} unwrapped for key {context.id} is not what it was given; is "
                "it the service, and the key, of this data folder?"
            )
        return secret

    def renew(self) -> bool:
        return False

    def forget(self, needed: set[str]) -> None:
        """The service does that."""

    def _ask(
        self, act: Literal["wrap", "unwrap"], data: bytes, context: Context, key: str
    ) -> _Answer:
        asked = {"act": act, "data": base64.b64encode(data).decode(), "context": context._asdict()}
        if key:
            asked["key"] = key
        return self._read(msgspec.json.encode(asked) + b"\n")

    def _read(self, asked: bytes) -> _Answer:
        # It needs its own way to the service, and nothing of ours.
        own = {name: value for name, value in os.environ.items() if not _ours(name)}
        try:
            process = subprocess.Popen(
                self._command,
                env=own,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # it may tell more than the log should know
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigurationError(f"cannot run {self.where}: {error.strerror}") from None
        try:
            answer = _exchange(process, asked)
            status = process.wait(SECONDS)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise StorageUnavailable(
                f"{self.where}, which unwraps keys, gave no answer within {SECONDS:g} s",
                retry_after=1,
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if status != 0:
            raise StorageUnavailable(
                f"{self.where}, which unwraps keys, ended with status {status}", retry_after=1
            )
        try:
            return msgspec.json.decode(answer, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ConfigurationError(f"{self.where} answers no JSON with data") from None


def _exchange(process: subprocess.Popen[bytes], asked: bytes) -> bytes:
    """
    Raises:
        TimeoutError
        ConfigurationError: it says too much.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # its status says why
        process.stdin.write(asked)  # less than a pipe holds: it never blocks
        process.stdin.close()
    until = time.monotonic() + SECONDS
    answer = b""
    with selectors.DefaultSelector() as selector, process.stdout as out:
        selector.register(out, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, until - time.monotonic())):
                raise TimeoutError
            part = os.read(out.fileno(), MOST_BYTES)
            if not part:
                return answer
            answer += part
            if len(answer) > MOST_BYTES:
                raise ConfigurationError("the program that wraps keys answers far too much")


def _bound(secret: bytes, context: Context) -> bytes:
    return secret + hashlib.sha256(context.encoded() + secret).digest()


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError("the program that wraps keys answers no base64") from None


def _ours(name: str) -> bool:
    return name.startswith("OPENMAAS_")

"""A conversation written the way its model was trained to read it.

The model's own Jinja template is part of a downloaded file and so is not trusted: it is
rendered by a confined process (``template.py``) with limited time, memory and result. No
template comes from a request.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec

from openmaas.errors import InvalidRequest, PayloadTooLarge
from openmaas.inference import Message, Tool

MAX_CHARACTERS = 8 << 20  # of a prompt
MEMORY = 512 << 20  # bytes of address space for the process, Python included
_MAX_TEMPLATE = 256 << 10  # characters
_SECONDS = 10.0  # for an answer; the processor's time is bounded more tightly
_START_SECONDS = 60.0  # for the first answer of a process
_MAX_ANSWER = 4 * MAX_CHARACTERS + 64  # bytes
_COMMAND = [
    *(sys.executable, "-m", "openmaas.placement.sandbox", "--limits"),
    msgspec.json.encode({"address_space": MEMORY}).decode(),
    *("--module", "openmaas.tasks.template"),
]


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """One conversation to write down."""

    template: str
    messages: list[Message]
    tools: list[Tool]
    special_tokens: dict[str, str]


class Rendered(msgspec.Struct, frozen=True, array_like=True):
    """The prompt, or why there is none."""

    text: str = ""
    error: str | None = None
    too_long: bool = False


class TemplateRenderer:
    """Owns the rendering process: started ahead, and again whenever it has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answered = False
        self._start()

    def render(
        self,
        template: str | None,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        special_tokens: dict[str, str],
    ) -> str:
        """The prompt, up to where the assistant's answer begins.

        Raises:
            InvalidRequest: there is no template, or it refuses the conversation, fails, or
                takes too long.
            PayloadTooLarge: the prompt is too long.
        """
        if template is None:
            raise InvalidRequest(
                "this model has no chat template; it continues raw prompts only (/v1/completions)"
            )
        if len(template) > _MAX_TEMPLATE:
            raise InvalidRequest("this model's chat template is too long to be one")
        asked = Asked(template, list(messages), list(tools), special_tokens)
        answer = self._ask(msgspec.msgpack.encode(asked))
        if answer.too_long:
            raise PayloadTooLarge(f"the prompt is longer than {MAX_CHARACTERS} characters")
        if answer.error is not None:
            raise InvalidRequest(f"this model's chat template {answer.error}")
        return answer.text

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # a question that nobody reads
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self.close()
        self._answered = False
        self._process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what fails there may quote a prompt
        )
        return self._process

    def _ask(self, question: bytes) -> Rendered:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        assert process.stdin is not None
        until = time.monotonic() + (_SECONDS if self._answered else _START_SECONDS)
        try:
            process.stdin.write(struct.pack("<I", len(question)) + question)
            process.stdin.flush()
            size = struct.unpack("<I", self._read(process, 4, until))[0]
            if size > _MAX_ANSWER:
                raise ValueError("an answer out of bounds")
            answer = msgspec.msgpack.decode(self._read(process, size, until), type=Rendered)
        except (EOFError, BrokenPipeError, TimeoutError, ValueError):
            self._start()  # ready for the next
            return Rendered(error="took too long or failed")
        self._answered = True
        return answer

    @staticmethod
    def _read(process: subprocess.Popen[bytes], size: int, until: float) -> bytes:
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        waiting = select.poll()
        waiting.register(pipe, select.POLLIN)
        parts: list[bytes] = []
        while size > 0:
            if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
                raise TimeoutError
            part = os.read(pipe, min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

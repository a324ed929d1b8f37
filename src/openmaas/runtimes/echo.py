"""The honest fake: a runtime without a model, for tests of everything around one.

It keeps every promise of the interface, deterministically: the answer is the last user message
(or the raw prompt), again and again. It notes what it produced in a log of its own, which bills
can be compared with, and has faults on demand (``echo_faults.py``).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

from openmaas.errors import InvalidRequest, UnsupportedParameter
from openmaas.inference import ModelInfo, Sampling
from openmaas.runtimes import echo_faults
from openmaas.runtimes.base import Runtime, SampledToken, Step
from openmaas.runtimes.echo_batch import EchoEmbeddings, EchoNetwork
from openmaas.runtimes.echo_options import EchoOptions, note_prompt, read

HONOURED = ["seed", "top_k", "logprobs", "top_logprobs", "echo_logprobs", "top_echo_logprobs"]
HONOURED += ["tools", "ignore_eos"]

END, START, EOS = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
_SPECIAL = {EOS: 0, START: 1, END: 2}
_TEXTS = {id: text for text, id in _SPECIAL.items()}
_ONE, _TWO, _THREE = 16, 16 + (1 << 8), 16 + (1 << 8) + (1 << 16)  # first ids by length
VOCABULARY = _THREE + (1 << 24)
_MARK = r"<\|im_start\|>|<\|im_end\|>|<\|endoftext\|>"
# A line end stands alone, and a word ends where a special token begins, so that the prompt's
# tokens show where a turn begins and ends.
_SPLIT = re.compile(rf"({_MARK})|(\n|[^\S\n]?(?:(?!{_MARK})\S)+|[^\S\n]+)")
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
_WAIT = 0.02  # seconds that a step waits for the next token to be due


def open(folder: Path, options: dict[str, Any]) -> Runtime:
    """Ignores the artifact. Options: ``EchoOptions``.

    Raises:
        ConfigurationError: an option is unknown or out of range.
    """
    known = read(options)
    time.sleep(known.start_seconds)
    if known.task == "embed":
        return EchoEmbeddings(known)
    if known.task == "predict":
        return EchoNetwork(known)
    return Echo(known)


def tokenize(text: str) -> list[int]:
    """A token is up to three bytes of a word with the space before it. The id holds the bytes,
    so there is no table; characters of four bytes are split, as real vocabularies do."""
    ids: list[int] = []
    for special, word in _SPLIT.findall(text):
        if special:
            ids.append(_SPECIAL[special])
            continue
        encoded = word.encode(errors="replace")
        for at in range(0, len(encoded), 3):
            part = encoded[at : at + 3]
            ids.append((0, _ONE, _TWO, _THREE)[len(part)] + int.from_bytes(part, "big"))
    return ids


def piece(token: int) -> bytes:
    for first, length in ((_THREE, 3), (_TWO, 2), (_ONE, 1)):
        if token >= first:
            return (token - first).to_bytes(length, "big")
    return b""


class _Sequence:
    """What remains to be said of one sequence."""

    def __init__(
        self, prompt: list[int], sampling: Sampling, echo: bool, options: EchoOptions
    ) -> None:
        said = _last_turn(prompt)
        text = b"".join(map(piece, said)).decode(errors="replace") or "…"
        self.prompt = prompt
        self.echo = echo
        self.logprobs = sampling.logprobs
        self.count = 0
        self.fault = echo_faults.written_in(text)
        if self.fault is None and options.fault is not None:
            self.fault = echo_faults.Fault(options.fault, options.fault_after)
        room = options.context_tokens - len(prompt)
        most = room if sampling.max_tokens is None else sampling.max_tokens
        ends = not sampling.ignore_eos and most > options.answer_tokens
        self.limit = options.answer_tokens if ends else most
        self.finish = "stop" if ends else "length"
        self._first = said or tokenize("…")
        self._again = tokenize(" " + text)
        pace = 1.0 if self._is("slow", 0) else options.tokens_per_second
        self.seconds = 1 / pace if pace else 0.0
        self.due = time.monotonic() + self.seconds

    def next(self) -> SampledToken:
        at = self.count
        self.count += 1
        if at < len(self._first):
            id = self._first[at]
        else:
            id = self._again[(at - len(self._first)) % len(self._again)]
        return self.sampled(id, at)

    def sampled(self, id: int, at: int) -> SampledToken:
        """The token with a log-probability that depends on it and its place alone."""
        if self.logprobs is None:
            return SampledToken(id)
        if self._is("nan", at):
            return SampledToken(id, math.nan)
        digest = hashlib.sha256(f"{id} {at}".encode()).digest()
        likely = 0.5 + digest[0] / 512
        others = [
            (tokenize(chr(97 + (digest[1] + k) % 26))[0], math.log((1 - likely) / 2**k))
            for k in range(1, self.logprobs)
        ]
        alternatives = [(id, math.log(likely)), *others] if self.logprobs else []
        return SampledToken(id, math.log(likely), alternatives)

    def failing(self) -> echo_faults.Fault | None:
        return self.fault if self.fault and self.count >= self.fault.after else None

    def _is(self, kind: str, at: int) -> bool:
        return self.fault is not None and self.fault.kind == kind and at >= self.fault.after


class Echo:
    """A ``TokenRuntime``."""

    def __init__(self, options: EchoOptions) -> None:
        self._options = options
        self._sequences: dict[int, _Sequence] = {}
        self._log = os.open(options.token_log, _APPEND, 0o600) if options.token_log else None
        self.info = ModelInfo(
            task="chat",
            runtime="echo",
            options=list(HONOURED),
            context_tokens=options.context_tokens,
            room=options.slots,
        )

    def encode(self, text: str) -> list[int]:
        return tokenize(text)

    def start(self) -> list[int]:
        return []

    def piece(self, token: int) -> bytes:
        return piece(token)

    def chat_template(self) -> str | None:
        return _TEMPLATE

    def special_tokens(self) -> dict[str, str]:
        return {"bos_token": START, "eos_token": END}

    def add(self, id: int, prompt: list[int], sampling: Sampling, *, echo: bool = False) -> None:
        for name, refused in (
            ("logit_bias", bool(sampling.logit_bias)),
            ("presence_penalty", sampling.presence_penalty != 0),
            ("frequency_penalty", sampling.frequency_penalty != 0),
            ("response_format", sampling.json_schema is not None),
        ):
            if refused:
                raise UnsupportedParameter(f"{name} is not supported here", param=name)
        if not prompt or not all(0 <= token < VOCABULARY for token in prompt):
            raise InvalidRequest(f"prompt token ids are from 0 to {VOCABULARY - 1}", param="prompt")
        room = self.info.context_tokens - len(prompt)
        wanted = room if sampling.max_tokens is None else sampling.max_tokens
        if not (0 if echo else 1) <= wanted <= room:
            raise InvalidRequest(
                f"prompt ({len(prompt)} tokens) and max_tokens ({wanted}) do not fit the model's "
                f"{self.info.context_tokens}",
                param="max_tokens",
            )
        note_prompt(self._options, b"".join(map(piece, prompt)))
        self._sequences[id] = _Sequence(prompt, sampling, echo, self._options)

    def cancel(self, id: int) -> None:
        self._sequences.pop(id, None)

    def step(self) -> list[Step]:
        now = self._wait()
        steps: list[Step] = []
        lines: list[str] = []
        for id, sequence in self._sequences.items():
            if sequence.due <= now:
                steps.append(self._advance(id, sequence, lines))
        if self._log is not None and lines:  # noted before it is delivered
            os.write(self._log, "".join(lines).encode())
            os.fsync(self._log)
        for step in steps:
            if step.finish is not None:
                del self._sequences[step.id]
        return steps

    def busy(self) -> bool:
        return bool(self._sequences)

    def close(self) -> None:
        self._sequences.clear()
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _wait(self) -> float:
        """Until a token is due, but never so long that newcomers wait."""
        now = time.monotonic()
        first = min((sequence.due for sequence in self._sequences.values()), default=now)
        if first > now:
            time.sleep(min(first - now, _WAIT))
            now = time.monotonic()
        return now

    def _advance(self, id: int, sequence: _Sequence, lines: list[str]) -> Step:
        fault = sequence.failing()
        if fault is not None:
            echo_faults.happen(fault, self._options.oom_mib << 20)
        sequence.due += sequence.seconds
        tokens: list[SampledToken] = []
        first = sequence.count == 0
        if first and sequence.echo:
            tokens = [sequence.sampled(token, -at) for at, token in enumerate(sequence.prompt)]
            tokens[0].logprob, tokens[0].alternatives = None, []
        made = 0
        if sequence.limit:
            tokens.append(sequence.next())
            made = 1
        if self._log is not None:
            taken = len(sequence.prompt) if first else 0
            lines.append(json.dumps({"sequence": id, "in": taken, "out": made}) + "\n")
        return Step(
            id=id,
            tokens=tokens,
            finish=sequence.finish if sequence.count >= sequence.limit else None,
        )


_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


def _last_turn(prompt: list[int]) -> list[int]:
    """The text of the last user message, or all of a raw prompt."""
    start, end = _SPECIAL[START], _SPECIAL[END]
    head = [start, *tokenize("user\n")]
    for at in range(len(prompt) - 1, -1, -1):
        if prompt[at] == start and prompt[at : at + len(head)] == head:
            rest = prompt[at + len(head) :]
            return rest[: rest.index(end)] if end in rest else rest
    return [token for token in prompt if token not in _TEXTS]

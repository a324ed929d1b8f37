"""Options of the echo runtime."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import msgspec

from openmaas.errors import ConfigurationError

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]


class EchoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``open`` takes."""

    task: Literal["chat", "embed", "predict"] = "chat"
    start_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0  # of loading
    # of one sequence; 0: as fast as can be. Of embed and predict: calls a second.
    tokens_per_second: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0
    slots: _Positive = 1 << 20  # sequences that run at once
    token_log: str | None = None  # where every token is noted before it is delivered
    prompt_log: str | None = None  # where every prompt and text is noted as it came
    answer_tokens: _Positive = 256  # after which an answer ends by itself
    context_tokens: Annotated[int, msgspec.Meta(ge=2, le=1 << 24)] = 32768
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 16  # of embed
    fault: Literal["crash", "segv", "hang", "oom", "nan", "slow"] | None = None
    fault_after: _Count = 0  # tokens of each sequence; of embed and predict: requests
    oom_mib: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0  # really taken by an ``oom``


def note_prompt(options: EchoOptions, text: bytes) -> None:
    """Writes down what a request's model was given, a JSON string a line, if that is asked for."""
    if options.prompt_log is None:
        return
    file = os.open(options.prompt_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, msgspec.json.encode(text.decode(errors="replace")) + b"\n")
    finally:
        os.close(file)


def read(options: dict[str, Any]) -> EchoOptions:
    """
    Raises:
        ConfigurationError: an option is unknown or out of range.
    """
    known = EchoOptions.__struct_fields__
    for name in options:
        if name not in known:
            raise ConfigurationError(f"no option {name!r} here; there are: {', '.join(known)}")
    try:
        return msgspec.convert(options, EchoOptions)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"option of the echo runtime: {error}") from None

"""Parameters that OpenAI's chat and text completions share, and how they reach the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest, PayloadTooLarge, UnsupportedParameter
from openmaas.inference import Sampling

SCHEMA_BYTES = 65_536  # of one JSON schema: of the answer, or of a tool's parameters

ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Alternatives = Annotated[int, Meta(ge=0, le=20)]
TopK = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
LogitBias = Annotated[dict[TokenId, Bias], Meta(max_length=1024)]
StopText = Annotated[str, Meta(min_length=1, max_length=1024)]
Stop = StopText | list[StopText]


class StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    # Padding against traffic analysis; asking for it is refused.
    include_obfuscation: bool | None = None


class Sampled(Struct, forbid_unknown_fields=True, kw_only=True):
    """What both bodies have in common."""

    model: ModelName
    n: Count | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Any = None  # refused: end users are not recorded
    # extensions of OpenMaaS, under the names that other servers gave them
    top_k: TopK | None = None  # 0 and −1: all tokens
    ignore_eos: bool | None = None


def sampling(
    body: Sampled, *, max_tokens: int | None, logprobs: int | None, json_schema: str | None = None
) -> Sampling:
    """The neutral form of the shared parameters."""
    temperature = 1.0 if body.temperature is None else body.temperature
    top_p = 1.0 if body.top_p is None else body.top_p
    if top_p == 0:  # the nucleus of no mass is the likeliest token alone: greedy
        temperature, top_p = 0.0, 1.0
    stop = body.stop or []
    given = {"temperature": body.temperature, "top_p": body.top_p, "top_k": body.top_k}
    return Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,
        left_to_model=[name for name, value in given.items() if value is None and body.top_p != 0],
        seed=body.seed,
        stop=[stop] if isinstance(stop, str) else stop,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=body.logit_bias or {},
        logprobs=logprobs,
        json_schema=json_schema,
        ignore_eos=bool(body.ignore_eos),
    )


def include_usage(body: Sampled) -> bool:
    """Whether the stream ends with a usage chunk.

    Raises:
        InvalidRequest: stream options without a stream.
        UnsupportedParameter: obfuscation is asked for.
    """
    options = body.stream_options
    if options is None:
        return False
    if not body.stream:
        raise InvalidRequest("stream_options needs stream: true", param="stream_options")
    if options.include_obfuscation:
        raise UnsupportedParameter(
            "stream_options.include_obfuscation is not supported",
            param="stream_options.include_obfuscation",
        )
    return bool(options.include_usage)


def refuse(body: Struct, harmless: Mapping[str, tuple[Any, ...]], *, prefix: str = "") -> None:
    """Refuses fields of the published API that are not done here, by name.

    Args:
        harmless: field → values that ask for nothing, null aside, and so pass.

    Raises:
        UnsupportedParameter: the first field that asks for something.
    """
    for name, values in harmless.items():
        value = getattr(body, name)
        if value is None or any(type(value) is type(v) and value == v for v in values):
            continue
        allowed = f" (only {' or '.join(map(_json, values))})" if values else ""
        raise UnsupportedParameter(
            f"{prefix}{name} is not supported by this server{allowed}", param=prefix + name
        )


def schema_text(schema: dict[str, Any], *, depth: int, param: str) -> str:
    """A JSON schema as compact text, bounded in depth and size.

    Raises:
        PayloadTooLarge: it is deeper than ``depth`` or longer than ``SCHEMA_BYTES``.
    """
    if _deeper(schema, depth):
        raise PayloadTooLarge(f"{param} is nested deeper than {depth} levels", param=param)
    text = msgspec.json.encode(schema)
    if len(text) > SCHEMA_BYTES:
        raise PayloadTooLarge(f"{param} is longer than {SCHEMA_BYTES} bytes", param=param)
    return text.decode()


def _deeper(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth == 0 or any(_deeper(child, depth - 1) for child in value.values())
    if isinstance(value, list):
        return depth == 0 or any(_deeper(child, depth - 1) for child in value)
    return False


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

"""Whether a file is what its batch says, line by line, before the first one is asked."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from openmaas.batches.files import LINES
from openmaas.batches.lines import Input, Opens, raw_lines
from openmaas.batches.records import Trouble

MOST_TROUBLES = 100  # that are told
LONGEST_ID = 512  # characters of a custom_id


class Found(NamedTuple):
    total: int
    model: str | None  # that all lines name
    troubles: list[Trouble]


class _Body(msgspec.Struct):
    model: Any = None
    stream: Any = None


_line = msgspec.json.Decoder(Input).decode
_body = msgspec.json.Decoder(_Body).decode


def validate(opens: Opens, endpoint: str) -> Found:
    """Reads the file once; it is never in memory as a whole."""
    troubles: list[Trouble] = []
    seen: set[bytes] = set()
    models: set[str | None] = set()
    total = 0
    for number, _, raw in raw_lines(opens):
        total += 1
        found = _check(raw, endpoint, seen)
        if isinstance(found, Trouble):
            troubles.append(msgspec.structs.replace(found, line=number))
            if len(troubles) >= MOST_TROUBLES:
                break
        elif len(models) < 2:
            models.add(_name(found.model))
    if total > LINES:
        troubles = [Trouble("too_many_tasks", f"a batch has {LINES} lines at the most")]
    if not total:
        troubles = [Trouble("empty_file", "the file has no line; a batch has one at the least")]
    return Found(total, models.pop() if len(models) == 1 else None, troubles)


def _name(model: Any) -> str | None:
    """A model's name, if it could be one."""
    return model if isinstance(model, str) and len(model) <= 256 and model.isprintable() else None


def _check(raw: bytes, endpoint: str, seen: set[bytes]) -> Trouble | _Body:
    try:
        line = _line(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Trouble("invalid_json_line", "this line is not a JSON object")
    given = {"custom_id": line.custom_id, "method": line.method, "url": line.url}
    for name, value in (*given.items(), ("body", bytes(line.body) or None)):
        if value is None:
            return Trouble("missing_required_parameter", f"{name} is missing", param=name)
    if not isinstance(line.custom_id, str) or not 1 <= len(line.custom_id) <= LONGEST_ID:
        return Trouble(
            "invalid_custom_id",
            f"custom_id is a text of 1 to {LONGEST_ID} characters",
            param="custom_id",
        )
    digest = hashlib.blake2b(line.custom_id.encode(), digest_size=16).digest()
    if digest in seen:
        return Trouble(
            "duplicate_custom_id", "another line has this custom_id too", param="custom_id"
        )
    seen.add(digest)
    if line.method != "POST":
        return Trouble("invalid_method", "method is POST", param="method")
    if line.url != endpoint:
        return Trouble("invalid_url", f"url is the batch's own endpoint, {endpoint}", param="url")
    try:
        body = _body(line.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Trouble("invalid_body", "body is a JSON object", param="body")
    if body.stream not in (None, False):
        return Trouble("unsupported_parameter", "a batch streams nothing", param="body.stream")
    return body

"""A tool call that the caller demands: the schema that holds the model to it, and its reading."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from openmaas.errors import InvalidRequest
from openmaas.inference import Tool, ToolCallDelta

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([A-Za-z0-9_.-]{1,64})"\s*,\s*"arguments"\s*:\s*')
_DEFINITIONS = ("$defs", "definitions")


def schema_for(tools: Sequence[Tool]) -> str:
    """JSON schema of one call of one of the tools: ``{"name": …, "arguments": {…}}``.

    Raises:
        InvalidRequest: a tool's schema refers to something outside its own definitions.
    """
    shared: dict[str, Any] = {}
    calls = [_call(tool, f"tool{at}_", shared) for at, tool in enumerate(tools)]
    schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    if shared:
        schema = schema | {"$defs": shared}
    return json.dumps(schema)


def _call(tool: Tool, prefix: str, shared: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object"} | tool.parameters
    for place in _DEFINITIONS:
        for name, definition in (parameters.pop(place, None) or {}).items():
            shared[prefix + name] = _moved(definition, prefix)
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": _moved(parameters, prefix)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, prefix: str) -> Any:
    """The schema with its references pointing to where the definitions were moved."""
    if isinstance(schema, list):
        return [_moved(item, prefix) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {name: _moved(value, prefix) for name, value in schema.items()}
    target = schema.get("$ref")
    if isinstance(target, str):
        parts = target.split("/")
        if len(parts) != 3 or parts[0] != "#" or parts[1] not in _DEFINITIONS:
            raise InvalidRequest(
                "a tool's parameters may refer to their own $defs only", param="tools"
            )
        moved["$ref"] = f"#/$defs/{prefix}{parts[2]}"
    return moved


class ForcedCall:
    """Reads the one call of an answer that the engine held to ``schema_for``, as it streams:
    first the name, then the arguments as they come, the call's own closing brace left out."""

    def __init__(self, new_id: Callable[[], str] | None = None) -> None:
        self._new_id = new_id or (lambda: "call_" + secrets.token_hex(12))
        self._head: str | None = ""
        self._depth = 0
        self._in_string = self._escaped = self._ended = False
        self.count = 0

    def feed(self, text: str) -> tuple[str, list[ToolCallDelta]]:
        if self._head is None:
            arguments = self._arguments(text)
            return "", [ToolCallDelta(index=0, arguments=arguments)] if arguments else []
        self._head += text
        # Without the first character of the arguments, the space before them may not be over.
        match = _HEAD.match(self._head)
        if match is None or match.end() == len(self._head):
            return "", []
        arguments = self._arguments(self._head[match.end() :])
        self._head = None
        self.count = 1
        return "", [ToolCallDelta(index=0, id=self._new_id(), name=match[1], arguments=arguments)]

    def finish(self) -> tuple[str, list[ToolCallDelta]]:
        """An answer that ends before its name is complete is no call: it is text."""
        return self._head or "", []

    def _arguments(self, text: str) -> str:
        """The part of ``text`` that belongs to the arguments: up to where their object ends."""
        if self._ended:  # what follows is the call's own end
            return ""
        for at, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = char == "\\"
                self._in_string = char != '"'
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self._ended = True
                    return text[: at + 1]
        return text

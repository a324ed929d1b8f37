"""JSON schemas that answers can be held to: a subset that engines compile in bounded time.

A keyword outside the subset is refused by name. An engine that ignored it would give answers
that do not validate, and one that cannot compile a schema may lose the requests beside it.
"""

from __future__ import annotations

import json
from typing import Any

from openmaas.errors import InvalidRequest, UnsupportedParameter

MAX_NODES = 1000  # subschemas
MAX_VALUES = 1000  # of all enumerations together
MAX_COUNT = 1000  # of a minItems, maxLength …
MAX_DEPTH = 64

_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}
_ANNOTATIONS = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
    "$schema", "$id", "$comment", "format",
}  # fmt: skip
_COUNTS = {"minItems", "maxItems", "minLength", "maxLength"}
_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_SUBSET = _COUNTS | _NUMBERS | {
    "type", "properties", "required", "additionalProperties", "items", "prefixItems", "enum",
    "const", "anyOf", "allOf", "$ref", "$defs", "definitions",
}  # fmt: skip


def check(text: str, param: str = "response_format") -> None:
    """
    Raises:
        InvalidRequest: no JSON schema, or one out of bounds.
        UnsupportedParameter: a keyword that engines do not honour.
    """
    try:
        root = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("the schema is no JSON", param=param) from None
    if not isinstance(root, dict):
        raise InvalidRequest("the schema is a JSON object", param=param)
    _Check(root, param).node(root, 0)


class _Check:
    def __init__(self, root: Any, param: str) -> None:
        self._root = root
        self._param = param
        self._nodes = self._values = 0

    def node(self, schema: Any, depth: int) -> None:
        if isinstance(schema, bool):
            return
        self._nodes += 1
        if not isinstance(schema, dict):
            raise self._wrong("a schema is an object")
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise self._wrong(f"more than {MAX_NODES} parts, or {MAX_DEPTH} levels")
        for name, value in schema.items():
            if name in _ANNOTATIONS:
                continue
            if name not in _SUBSET:
                raise UnsupportedParameter(
                    f"JSON schema keyword {name[:64]!r} is not supported", param=self._param
                )
            self._keyword(name, value, schema, depth + 1)

    def _keyword(self, name: str, value: Any, schema: dict[str, Any], depth: int) -> None:
        if name == "type":
            self._type(value)
        elif name in ("properties", "$defs", "definitions"):
            self._need(isinstance(value, dict), f"{name} is an object of schemas")
            for child in value.values():
                self.node(child, depth)
        elif name in ("items", "additionalProperties"):
            self.node(value, depth)
        elif name in ("anyOf", "prefixItems", "allOf"):
            self._need(isinstance(value, list) and len(value) > 0, f"{name} is a list of schemas")
            # Engines merge no schemas; tools that write them wrap a single one.
            self._need(name != "allOf" or len(value) == 1, "allOf takes one schema here")
            for child in value:
                self.node(child, depth)
        elif name == "required":
            known = schema.get("properties", {})
            right = isinstance(value, list) and all(isinstance(item, str) for item in value)
            self._need(right and all(item in known for item in value), "required lists properties")
        elif name == "enum":
            self._need(isinstance(value, list) and len(value) > 0, "enum is a list of values")
            self._values += len(value)
            self._need(self._values <= MAX_VALUES, f"more than {MAX_VALUES} enum values")
        elif name == "$ref":
            self._reference(value)
        elif name in _COUNTS:
            right = type(value) is int and 0 <= value <= MAX_COUNT
            self._need(right, f"{name} is a whole number from 0 to {MAX_COUNT}")
        elif name in _NUMBERS:
            right = type(value) is int and abs(value) < 1 << 53 and schema.get("type") == "integer"
            self._need(right, f"{name} is a whole number beside type integer")

    def _type(self, value: Any) -> None:
        names = value if isinstance(value, list) else [value]
        self._need(
            bool(names) and all(isinstance(one, str) and one in _TYPES for one in names),
            f"type is one of {', '.join(sorted(_TYPES))}",
        )

    def _reference(self, value: Any) -> None:
        parts = value.split("/") if isinstance(value, str) else []
        if parts == ["#"]:
            return
        right = len(parts) == 3 and parts[0] == "#" and parts[1] in ("$defs", "definitions")
        found = self._root.get(parts[1], {}) if right and isinstance(self._root, dict) else {}
        self._need(right and isinstance(found, dict) and parts[2] in found, "$ref: #/$defs/NAME")

    def _need(self, holds: bool, rule: str) -> None:
        if not holds:
            raise self._wrong(rule)

    def _wrong(self, rule: str) -> InvalidRequest:
        return InvalidRequest(f"the schema is not usable: {rule}", param=self._param)

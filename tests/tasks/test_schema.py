"""Which JSON schemas answers can be held to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openmaas.errors import InvalidRequest, UnsupportedParameter
from openmaas.tasks.schema import MAX_DEPTH, MAX_NODES, MAX_VALUES, check

GOOD: list[Any] = [
    {},
    {"type": "object"},
    {"type": ["string", "null"], "title": "t", "description": "d", "default": None},
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]},
    {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 3},
    {"anyOf": [{"const": 1}, {"enum": ["a", None, 2.5]}]},
    {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "null"}}},
    {"$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
    {"properties": {"deep": {"$ref": "#"}}, "additionalProperties": False},
]


@pytest.mark.parametrize("schema", GOOD, ids=json.dumps)
def test_accepted(schema: Any) -> None:
    check(json.dumps(schema))


def deep(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


BAD: list[Any] = [
    {"type": "foo"},
    {"type": []},
    {"type": 1},
    [],
    "string",
    {"properties": []},
    {"properties": {"a": 1}},
    {"required": ["a"]},
    {"required": "a", "properties": {"a": {}}},
    {"enum": []},
    {"anyOf": []},
    {"allOf": [{}, {}]},
    {"$ref": "#/$defs/absent"},
    {"$ref": "https://example.org/schema"},
    {"$ref": 1},
    {"maxLength": -1},
    {"maxItems": 10**9},
    {"minItems": True},
    {"type": "number", "minimum": 0.5},
    {"type": "integer", "maximum": 10**30},
    {"enum": list(range(MAX_VALUES + 1))},
    {"properties": {str(at): {} for at in range(MAX_NODES + 1)}},
    deep(MAX_DEPTH + 1),
]


@pytest.mark.parametrize("schema", BAD, ids=lambda schema: json.dumps(schema)[:40])
def test_refused(schema: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(json.dumps(schema), "response_format")
    assert caught.value.param == "response_format"


@pytest.mark.parametrize(
    "keyword", ["not", "if", "oneOf", "pattern", "uniqueItems", "multipleOf", "patternProperties"]
)
def test_keywords_that_engines_do_not_honour_are_named(keyword: str) -> None:
    with pytest.raises(UnsupportedParameter, match=keyword):
        check(json.dumps({"properties": {"a": {keyword: {}}}}))


def test_what_is_no_json_is_refused() -> None:
    for text in ('{"type":', "[" * 100_000, ""):
        with pytest.raises(InvalidRequest):
            check(text)

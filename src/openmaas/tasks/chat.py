"""A conversation written the way its model was trained to read it.

The model's own Jinja template is part of a downloaded file and so is not trusted: it runs
sandboxed, for a limited time, in limited memory, with a limited result. No template comes
from a request.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Sequence
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from openmaas.errors import InvalidRequest, PayloadTooLarge
from openmaas.inference import Message, Tool
from openmaas.tasks import bounds
from openmaas.tasks.hermes import as_plain_turns

SECONDS = 1.0  # of one rendering
MEMORY = 256 << 20  # bytes that one rendering may add to the process
MAX_CHARACTERS = 8 << 20  # of the prompt
_MAX_BITS = 4096  # of a number in a template
_MAX_TEMPLATE = 256 << 10

# What the chat templates of published models use; filters that scan, pad or wrap text at
# length are not among them.
_FILTERS = [
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower",
    "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select",
    "selectattr", "sort", "string", "sum", "title", "trim", "unique", "upper",
]  # fmt: skip


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        # One such operation can take minutes or gigabytes within the interpreter's C code,
        # where no time limit reaches it.
        if operator == "**" or (operator == "%" and isinstance(left, str | bytes)):
            raise SecurityError(f"operator {operator} on {type(left).__name__}")
        if operator == "*":
            numbers = [side for side in (left, right) if isinstance(side, int)]
            if sum(number.bit_length() for number in numbers) > _MAX_BITS:
                raise SecurityError("a number out of bounds")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """``{% generation %}…{% endgeneration %}``: marks answers for training; no effect here."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own declaration)

    def parse(self, parser: Any) -> Any:
        parser.stream.skip(1)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(
    template: str | None,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    special_tokens: dict[str, str],
) -> str:
    """The prompt, up to where the assistant's answer begins. Main thread only.

    A template that says nothing of tools gets them described in the system message, in the
    Hermes form (``hermes.py``).

    Raises:
        InvalidRequest: there is no template, or it refuses the conversation, fails, or takes
            too long.
        PayloadTooLarge: the prompt is too long.
    """
    if template is None:
        raise InvalidRequest("this model has no chat template; it continues raw prompts only")
    if len(template) > _MAX_TEMPLATE:
        raise InvalidRequest("this model's chat template is too long to be one")
    if knows_tools(template):
        turns = [_turn(message) for message in messages]
        offered = [_described(tool) for tool in tools] or None
    else:
        turns, offered = as_plain_turns(messages, tools), None
    values = special_tokens | {
        "messages": turns,
        "tools": offered,
        "add_generation_prompt": True,
    }
    try:
        with bounds.limited(SECONDS, MEMORY):
            return _write(_compiled(template), values)
    except bounds.TimeUp:
        raise InvalidRequest("this model's chat template took too long") from None
    except (jinja2.TemplateError, SecurityError) as error:
        reason = str(error)[:200]
        raise InvalidRequest(f"this model's chat template refused: {reason}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, SyntaxError):
        raise InvalidRequest("this model's chat template failed on these messages") from None
    except (RecursionError, MemoryError):
        raise InvalidRequest("this model's chat template needs too much memory") from None


def knows_tools(template: str) -> bool:
    return "tools" in template


def _write(template: jinja2.Template, values: dict[str, Any]) -> str:
    parts: list[str] = []
    length = 0
    for part in template.generate(values):
        length += len(part)
        if length > MAX_CHARACTERS:
            raise PayloadTooLarge(f"the prompt is longer than {MAX_CHARACTERS} characters")
        parts.append(part)
    return "".join(parts)


@functools.lru_cache(maxsize=4)
def _compiled(template: str) -> jinja2.Template:
    sandbox = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    filters = {name: sandbox.filters[name] for name in _FILTERS}
    sandbox.filters = filters | {"tojson": _to_json}
    sandbox.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    for name in ("lipsum", "cycler", "joiner"):
        sandbox.globals.pop(name, None)
    return sandbox.from_string(template)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(str(form)[:64])


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in the transformers library: no HTML escapes, which models have never seen."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _object(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return turn


def _object(arguments: str) -> Any:
    """Templates expect the arguments as an object; what is none stays text."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _described(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description or "",
            "parameters": tool.parameters,
        },
    }

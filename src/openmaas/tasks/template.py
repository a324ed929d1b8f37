"""Renders chat templates, in a process of its own that may be killed for it.

Started by ``chat.py`` through ``placement/sandbox.py``, so that the kernel bounds its memory
and a template that breaks out of Jinja's sandbox finds no network and no file to write. Reads
and writes a uint32 length and a msgpack message, ``Asked`` and ``Rendered``, again and again;
a rendering that takes too much of the processor's time ends the process.
"""

from __future__ import annotations

import ctypes
import datetime
import functools
import json
import signal
import struct
import sys
from typing import Any

import jinja2
import msgspec
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from openmaas.inference import Message, Tool
from openmaas.tasks.chat import MAX_CHARACTERS, Asked, Rendered
from openmaas.tasks.hermes import as_plain_turns, knows_tools

CPU_SECONDS = 1.0  # of one rendering
_MAX_BITS = 4096  # of a number in a template
_PR_SET_PDEATHSIG = 1

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


def main() -> None:
    """Answers until its standard input ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while len(header := stdin.read(4)) == 4:
        body = stdin.read(struct.unpack("<I", header)[0])
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        answer = msgspec.msgpack.encode(render(msgspec.msgpack.decode(body, type=Asked)))
        signal.setitimer(signal.ITIMER_PROF, 0)
        stdout.write(struct.pack("<I", len(answer)) + answer)
        stdout.flush()


def render(asked: Asked) -> Rendered:
    """The prompt, up to where the assistant's answer begins.

    A template that says nothing of tools gets them described in the system message, in the
    Hermes form (``hermes.py``).
    """
    if knows_tools(asked.template):
        turns = [_turn(message) for message in asked.messages]
        offered = [_described(tool) for tool in asked.tools] or None
    else:
        turns, offered = as_plain_turns(asked.messages, asked.tools), None
    values = asked.special_tokens | {
        "messages": turns,
        "tools": offered,
        "add_generation_prompt": True,
    }
    try:
        return _write(_compiled(asked.template), values)
    except (jinja2.TemplateError, SecurityError) as error:
        return Rendered(error=f"refused: {str(error)[:200]}")
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, SyntaxError):
        return Rendered(error="failed on these messages")
    except (RecursionError, MemoryError):
        return Rendered(error="needs too much memory")


def _write(template: jinja2.Template, values: dict[str, Any]) -> Rendered:
    parts: list[str] = []
    length = 0
    for part in template.generate(values):
        length += len(part)
        if length > MAX_CHARACTERS:
            return Rendered(too_long=True)
        parts.append(part)
    return Rendered("".join(parts))


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


if __name__ == "__main__":
    main()

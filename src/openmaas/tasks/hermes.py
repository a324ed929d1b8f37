"""Tools for models whose template does not know them, in the Hermes form.

The form (NousResearch's Hermes function calling, taken over by Qwen): the system message lists
the functions as JSON within ``<tools>``; the model calls one by writing
``<tool_call>{"name": …, "arguments": {…}}</tool_call>``; results come back in
``<tool_response>``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from openmaas.inference import Message, Tool

_TOOLS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def as_plain_turns(messages: Sequence[Message], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Turns with a role and a text only, tools and their calls written into the text."""
    turns = [_plain(message) for message in messages]
    if not tools:
        return turns
    described = _TOOLS.format(tools="\n".join(_signature(tool) for tool in tools))
    if turns and turns[0]["role"] == "system":
        turns[0]["content"] += "\n\n" + described
        return turns
    return [{"role": "system", "content": described}, *turns]


def _plain(message: Message) -> dict[str, Any]:
    text = message.content or ""
    if message.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{text}\n</tool_response>"}
    calls = [
        f'<tool_call>\n{{"name": {_json(call.name)}, "arguments": {call.arguments}}}\n</tool_call>'
        for call in message.tool_calls or ()
    ]
    return {"role": message.role, "content": "\n".join([text, *calls] if text else calls)}


def _signature(tool: Tool) -> str:
    function = {"name": tool.name, "description": tool.description or ""}
    return _json({"type": "function", "function": function | {"parameters": tool.parameters}})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def knows_tools(template: str) -> bool:
    return "tools" in template

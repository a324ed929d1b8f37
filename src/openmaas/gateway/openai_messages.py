"""OpenAI's chat messages and tools → neutral ones."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest, UnsupportedParameter
from openmaas.gateway.openai_parameters import refuse, schema_text
from openmaas.inference import Message, Tool, ToolCall

FunctionName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_.-]{1,64}$")]
CallId = Annotated[str, Meta(min_length=1, max_length=256)]


class TextPart(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    text: str


class ImagePart(Struct, tag_field="type", tag="image_url"):
    """Refused by name: models here read text."""


class AudioPart(Struct, tag_field="type", tag="input_audio"):
    """Refused by name: models here read text."""


class FilePart(Struct, tag_field="type", tag="file"):
    """Refused by name: models here read text."""


class RefusalPart(Struct, tag_field="type", tag="refusal"):
    """Refused by name: models here read text."""


Content = str | list[TextPart | ImagePart | AudioPart | FilePart | RefusalPart]


class CalledFunction(Struct, forbid_unknown_fields=True):
    name: FunctionName
    arguments: str


class MessageToolCall(Struct, forbid_unknown_fields=True):
    id: CallId
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | None = None  # streamed deltas carry it, and clients send them back


class SystemMessage(Struct, tag_field="role", tag="system", forbid_unknown_fields=True):
    content: Content
    name: str | None = None


class DeveloperMessage(Struct, tag_field="role", tag="developer", forbid_unknown_fields=True):
    """A system message under its newer name."""

    content: Content
    name: str | None = None


class UserMessage(Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: Content
    name: str | None = None


class AssistantMessage(Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    content: Content | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    # null in answers, and so null when clients send an answer back; else refused
    refusal: Any = None
    audio: Any = None
    annotations: Any = None
    function_call: Any = None


class ToolMessage(Struct, tag_field="role", tag="tool", forbid_unknown_fields=True):
    content: Content
    tool_call_id: CallId


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(Struct, forbid_unknown_fields=True):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None  # a JSON schema
    strict: bool | None = None  # true only where the call is forced, else refused


class FunctionTool(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    function: Function


class NamedFunction(Struct, forbid_unknown_fields=True):
    name: FunctionName


class NamedToolChoice(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice

_ECHOED: dict[str, tuple[Any, ...]] = {
    "refusal": (),
    "audio": (),
    "annotations": ([],),
    "function_call": (),
}


def messages(given: list[ChatMessage]) -> list[Message]:
    """
    Raises:
        InvalidRequest: a message says nothing, or answers no tool call made before it.
        UnsupportedParameter: content that is not text.
    """
    found = []
    called: set[str] = set()
    for number, message in enumerate(given):
        where = f"messages[{number}]"
        if isinstance(message, AssistantMessage):
            found.append(_assistant(message, where))
            called.update(call.id for call in message.tool_calls or ())
            continue
        text = _text(message.content, where)
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in called:
                raise InvalidRequest(
                    f"{where} answers a tool call that no assistant message before it made",
                    param=f"{where}.tool_call_id",
                )
            found.append(Message(role="tool", content=text, tool_call_id=message.tool_call_id))
        elif isinstance(message, UserMessage):
            found.append(Message(role="user", content=text, name=message.name))
        else:
            found.append(Message(role="system", content=text, name=message.name))
    return found


def _assistant(message: AssistantMessage, where: str) -> Message:
    refuse(message, _ECHOED, prefix=f"{where}.")
    if message.content is None and not message.tool_calls:
        raise InvalidRequest(f"{where} has neither content nor tool_calls", param=where)
    calls = [
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in message.tool_calls or ()
    ]
    content = None if message.content is None else _text(message.content, where)
    return Message(role="assistant", content=content, name=message.name, tool_calls=calls or None)


def _text(content: Content, where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for number, part in enumerate(content):
        if not isinstance(part, TextPart):
            kind = part.__struct_config__.tag
            raise UnsupportedParameter(
                f"content parts of type {kind!r} are not supported, only 'text'",
                param=f"{where}.content[{number}].type",
            )
        texts.append(part.text)
    return "\n".join(texts)


def tools(given: list[FunctionTool] | None, choice: ToolChoice | None, depth: int) -> list[Tool]:
    """
    Raises:
        InvalidRequest: a name is given twice.
        PayloadTooLarge: a schema is too deep or too long.
        UnsupportedParameter: ``strict`` where the model's own words decide on the call.
    """
    found: dict[str, Tool] = {}
    for number, tool in enumerate(given or ()):
        function = tool.function
        where = f"tools[{number}].function"
        if function.name in found:
            raise InvalidRequest(f"two tools are named {function.name!r}", param=f"{where}.name")
        if function.strict and choice in (None, "auto", "none"):
            raise UnsupportedParameter(
                "strict tools need tool_choice 'required' or a named function: only then are "
                "the arguments held to the schema",
                param=f"{where}.strict",
            )
        parameters = function.parameters or {}
        schema_text(parameters, depth=depth, param=f"{where}.parameters")
        found[function.name] = Tool(
            name=function.name, description=function.description, parameters=parameters
        )
    return list(found.values())


def tool_choice(choice: ToolChoice | None, known: list[Tool]) -> str:
    """The neutral form: "auto", "none", "required" or "function:NAME".

    Raises:
        InvalidRequest: a call is demanded of a tool that was not given.
    """
    if choice is None:
        return "auto"
    if isinstance(choice, NamedToolChoice):
        name = choice.function.name
        if all(tool.name != name for tool in known):
            raise InvalidRequest(f"tool_choice names {name!r}, not in tools", param="tool_choice")
        return f"function:{name}"
    if choice == "required" and not known:
        raise InvalidRequest("tool_choice 'required' needs tools", param="tool_choice")
    return choice

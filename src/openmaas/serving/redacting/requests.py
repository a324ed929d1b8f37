"""Every text of a request, each with the name of its field; and the request with others."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from openmaas.errors import InvalidRequest, PayloadTooLarge, UnsupportedParameter
from openmaas.inference import (
    Attribute,
    Chat,
    Complete,
    Embed,
    Loglikelihood,
    Message,
    Predict,
    Request,
    Sampling,
    Score,
    Tag,
    Tensor,
    Tokenize,
    Tool,
    ToolCall,
    Translate,
)

Asked = TypeVar("Asked", bound=Request)

SHARED = -1  # the place of texts that share their placeholders
_LENGTH = struct.Struct("<I")
_DEPTH = 64  # of JSON within a text
_NUMBER = 100_000  # from which on a whole number in JSON may be somebody's: a card's, a telephone's
# Where a schema's texts are rules and not words: they cannot be replaced.
_RULES = frozenset({"pattern", "patternProperties"})


class Change(Protocol):
    """What becomes of a text."""

    def __call__(self, text: str, param: str, place: int = SHARED) -> str:
        """
        Args:
            param: the request's field, for messages.
            place: texts of different places are answered each by itself, whatever else the
                request asks: a vector, or a row's prediction, depends on its own text alone.
        """


def rewritten(request: Asked, change: Change) -> Asked:
    """A request in which every text is what ``change`` makes of it.

    Raises:
        InvalidRequest: token ids, which cannot be searched; personal data in what cannot be
            replaced: a function's name, a rule of a schema.
    """
    made: Asked = _rewritten(request, change)
    return made


def _rewritten(request: Any, change: Change) -> Any:
    if isinstance(request, Chat):
        return _replace(
            request,
            messages=_messages(request.messages, change),
            tools=[_tool(tool, number, change) for number, tool in enumerate(request.tools)],
            sampling=_sampling(request.sampling, change),
        )
    if isinstance(request, Complete):
        prompts = [change(text, param) for text, param in _texts(request.prompts, "prompt")]
        return _replace(request, prompts=prompts, sampling=_sampling(request.sampling, change))
    if isinstance(request, Embed):
        inputs = [
            change(text, param, place)
            for place, (text, param) in enumerate(_texts(request.inputs, "input"))
        ]
        return _replace(request, inputs=inputs)
    if isinstance(request, Predict):
        return _replace(request, inputs=_tensors(request.inputs, request.rows, change))
    if isinstance(request, Score):
        return _replace(request, inputs=_scored(request, change))
    if isinstance(request, Tag | Tokenize):
        inputs = [
            change(text, param, place)
            for place, (text, param) in enumerate(_texts(request.inputs, "input"))
        ]
        return _replace(request, inputs=inputs)
    if isinstance(request, Translate):
        inputs = [change(text, param) for text, param in _texts(request.inputs, "input")]
        return _replace(request, inputs=inputs)
    if isinstance(request, Loglikelihood):
        answers = [change(text, f"answers[{at}]") for at, text in enumerate(request.answers)]
        return _replace(request, messages=_messages(request.messages, change), answers=answers)
    return _attributed(request, change)


def _replace(request: Asked, **fields: Any) -> Asked:
    return msgspec.structs.replace(request, **fields)


# --- language models -------------------------------------------------------------------------


def _messages(given: list[Message], change: Change) -> list[Message]:
    made = []
    for number, message in enumerate(given):
        where = f"messages[{number}]"
        made.append(
            msgspec.structs.replace(
                message,
                content=_maybe(message.content, f"{where}.content", change),
                name=_maybe(message.name, f"{where}.name", change),
                tool_calls=_calls(message.tool_calls, where, change),
            )
        )
    return made


def _maybe(text: str | None, param: str, change: Change) -> str | None:
    return change(text, param) if text else text


def _calls(given: list[ToolCall] | None, where: str, change: Change) -> list[ToolCall] | None:
    if given is None:
        return None
    made = []
    for number, call in enumerate(given):
        param = f"{where}.tool_calls[{number}].function"
        _fixed(call.name, f"{param}.name", change)
        arguments = json_text(call.arguments, f"{param}.arguments", change)
        made.append(msgspec.structs.replace(call, arguments=arguments))
    return made


def _tool(tool: Tool, number: int, change: Change) -> Tool:
    param = f"tools[{number}].function"
    _fixed(tool.name, f"{param}.name", change)
    return msgspec.structs.replace(
        tool,
        description=_maybe(tool.description, f"{param}.description", change),
        parameters=_json(tool.parameters, f"{param}.parameters", change, _DEPTH),
    )


def _sampling(sampling: Sampling, change: Change) -> Sampling:
    """A stop string stops where the model writes its placeholder; of a schema the texts are
    replaced, so that the model is held to placeholders."""
    if not sampling.stop and sampling.json_schema is None:
        return sampling
    schema = sampling.json_schema
    if schema is not None:
        schema = json_text(schema, "response_format", change)
    stop = [change(text, f"stop[{number}]") for number, text in enumerate(sampling.stop)]
    return msgspec.structs.replace(sampling, stop=stop, json_schema=schema)


def _texts(given: Sequence[str | list[int]], param: str) -> Iterator[tuple[str, str]]:
    for number, text in enumerate(given):
        if not isinstance(text, str):
            raise InvalidRequest(
                f"{param} is token ids, in which personal data cannot be found, as this key's "
                "redaction policy demands: send texts",
                param=param,
            )
        yield text, param if len(given) == 1 else f"{param}[{number}]"


def _fixed(text: str, param: str, change: Change) -> None:
    """
    Raises:
        InvalidRequest: it would be changed, and cannot be.
    """
    if change(text, param) != text:
        raise InvalidRequest(
            f"{param} has personal data in it, which this key's redaction policy hides, and is "
            "what a model must repeat exactly: choose another",
            param=param,
        )


# --- JSON --------------------------------------------------------------------------------------


def json_text(text: str, param: str, change: Change) -> str:
    """JSON in which texts are changed as they read, not as they are escaped. What is no JSON is a
    text like any other."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return change(text, param)
    if not isinstance(value, dict | list):
        return change(text, param)
    changed = _json(value, param, change, _DEPTH)
    return text if changed == value else msgspec.json.encode(changed).decode()


def _json(value: Any, param: str, change: Change, depth: int, rules: bool = False) -> Any:
    """Names of fields are texts too: a form may have a field for each person."""
    if depth == 0:
        raise PayloadTooLarge(f"{param} is nested deeper than {_DEPTH} levels", param=param)
    if isinstance(value, str):
        if rules:
            _fixed(value, param, change)
            return value
        return change(value, param)
    if isinstance(value, list):
        return [_json(one, param, change, depth - 1, rules) for one in value]
    if isinstance(value, dict):
        return {
            _json(name, param, change, depth - 1, rules): _json(
                one, param, change, depth - 1, rules or name in _RULES
            )
            for name, one in value.items()
        }
    if isinstance(value, int) and abs(value) >= _NUMBER:
        text = str(value)
        changed = change(text, param)
        return value if changed == text else changed
    return value


# --- networks ----------------------------------------------------------------------------------


def _scored(request: Score, change: Change) -> list[str | tuple[str, str]]:
    made: list[str | tuple[str, str]] = []
    for place, one in enumerate(request.inputs):
        param = f"input[{place}]"
        if isinstance(one, str):
            made.append(change(one, param, place))
        else:
            made.append((change(one[0], param, place), change(one[1], param, place)))
    return made


def _tensors(given: list[Tensor], rows: int, change: Change) -> list[Tensor]:
    """Texts alone: numbers are features, not words."""
    return [_tensor(one, rows, change) if one.datatype == "BYTES" else one for one in given]


def _tensor(tensor: Tensor, rows: int, change: Change) -> Tensor:
    found = elements(tensor)
    of_row = max(1, len(found) // max(1, rows))
    param = f"inputs[{tensor.name[:64]}]"
    made = [change(text, param, at // of_row) for at, text in enumerate(found)]
    return tensor if made == found else with_elements(tensor, made)


def elements(tensor: Tensor) -> list[str]:
    """Texts of a BYTES tensor; bytes that are no UTF-8 survive ``with_elements``."""
    found, at = [], 0
    data = tensor.data
    while at < len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        found.append(data[at + 4 : at + 4 + size].decode(errors="surrogateescape"))
        at += 4 + size
    return found


def with_elements(tensor: Tensor, texts: list[str]) -> Tensor:
    """The tensor with other texts."""
    parts = []
    for text in texts:
        raw = text.encode(errors="surrogateescape")
        parts += [_LENGTH.pack(len(raw)), raw]
    return msgspec.structs.replace(tensor, data=b"".join(parts))


def _attributed(request: Attribute, change: Change) -> Attribute:
    if request.text is not None and change(request.text, "input") != request.text:
        raise UnsupportedParameter(
            "gradients are of the text as the model reads it, and this one has personal data that "
            "this key's redaction policy hides",
            param="input",
        )
    return _replace(
        request,
        inputs=_tensors(request.inputs, 1, change),
        baselines=_tensors(request.baselines, 1, change),
    )

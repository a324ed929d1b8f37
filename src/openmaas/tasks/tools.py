"""Tool calls in a model's text: the forms in which models write them, read as text streams in.

* ``hermes``: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, several, amid text
  (Hermes, Qwen 2.5 and 3).
* ``mistral``: ``[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`` at the end; newer models
  write ``[TOOL_CALLS]name{…}`` or ``[TOOL_CALLS]name[ARGS]{…}``.
* ``llama``: the whole answer is ``{"name": …, "parameters": {…}}``, several joined by ``;``,
  perhaps after ``<|python_tag|>`` (Llama 3).

What looks like a call and is none (broken JSON, a function that was not offered) is text, as
the model wrote it. The result does not depend on how the text is cut into pieces.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection
from typing import Any

from openmaas.inference import ToolCallDelta
from openmaas.tasks.text import StopScanner

Found = tuple[str, list[ToolCallDelta]]  # text to send, and what is known of calls

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MISTRAL, MISTRAL_ARGUMENTS = "[TOOL_CALLS]", "[ARGS]"
PYTHON_TAG = "<|python_tag|>"
MARKERS = (OPEN, CLOSE, MISTRAL, MISTRAL_ARGUMENTS, PYTHON_TAG)
"""Texts that may be special tokens of a vocabulary, and must be read all the same."""

_decode = json.JSONDecoder().raw_decode


class ToolParser:
    """Base: finds calls in one answer."""

    def __init__(self, names: Collection[str], new_id: Callable[[], str] | None = None) -> None:
        self._names = names
        self._new_id = new_id or (lambda: "call_" + secrets.token_hex(12))
        self.count = 0  # calls so far

    def feed(self, text: str) -> Found:
        raise NotImplementedError

    def finish(self) -> Found:
        """What remains, once no more text comes."""
        raise NotImplementedError

    def _call(self, value: Any) -> ToolCallDelta | None:
        """The call that a JSON value is, if it is one of a function that was offered."""
        if not isinstance(value, dict) or value.get("name") not in self._names:
            return None
        arguments = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):  # some models quote the object
            arguments = _value(arguments)
        if not isinstance(arguments, dict):
            return None
        self.count += 1
        return ToolCallDelta(
            index=self.count - 1,
            id=self._new_id(),
            name=value["name"],
            arguments=json.dumps(arguments, ensure_ascii=False),
        )


class HermesParser(ToolParser):
    """Calls in tags amid text. White space around a call is not part of the answer."""

    def __init__(self, names: Collection[str], new_id: Callable[[], str] | None = None) -> None:
        super().__init__(names, new_id)
        self._outside = StopScanner([OPEN])
        self._inside: str | None = None  # text after the opening tag
        self._space = ""  # white space that is text unless a call follows

    def feed(self, text: str) -> Found:
        said: list[str] = []
        calls: list[ToolCallDelta] = []
        while text or (self._inside is not None and CLOSE in self._inside):
            if self._inside is None:
                text = self._read_text(text, said)
                continue
            self._inside += text
            text = ""
            body, closed, rest = self._inside.partition(CLOSE)
            if not closed:
                break
            self._end(body, CLOSE, said, calls)
            text = rest
        return "".join(said), calls

    def finish(self) -> Found:
        said: list[str] = []
        calls: list[ToolCallDelta] = []
        if self._inside is not None:  # models often end without closing the tag
            self._end(self._inside, "", said, calls)
        self._say(self._outside.finish(), said)
        if not self.count:
            said.append(self._space)
        return "".join(said), calls

    def _read_text(self, text: str, said: list[str]) -> str:
        """Reads up to an opening tag; returns what follows it."""
        held = self._outside.finish()
        before, tag, rest = (held + text).partition(OPEN)
        if tag:
            self._say(before, said)
            self._inside = ""
            return rest
        self._say(self._outside.feed(before), said)
        return ""

    def _say(self, text: str, said: list[str]) -> None:
        text = self._space + text
        kept = text.rstrip()
        self._space = text[len(kept) :]
        said.append(kept)

    def _end(self, body: str, closed: str, said: list[str], calls: list[ToolCallDelta]) -> None:
        self._inside = None
        call = self._call(_value(body))
        if call is None:
            self._say(OPEN + body + closed, said)
        else:
            calls.append(call)
            self._space = ""


class MistralParser(ToolParser):
    """Text up to a marker; all behind it is calls."""

    def __init__(self, names: Collection[str], new_id: Callable[[], str] | None = None) -> None:
        super().__init__(names, new_id)
        self._outside = StopScanner([MISTRAL])
        self._seen = ""  # what the scanner holds back is at its end
        self._inside: list[str] = []

    def feed(self, text: str) -> Found:
        if self._outside.stopped:
            self._inside.append(text)
            return "", []
        self._seen += text
        said = self._outside.feed(text)
        if self._outside.stopped:
            self._inside.append(self._seen.partition(MISTRAL)[2])
        self._seen = self._seen[len(said) :]
        return said, []

    def finish(self) -> Found:
        if not self._outside.stopped:
            return self._outside.finish(), []
        body = "".join(self._inside)
        values = _value(body)
        if not isinstance(values, list):
            values = self._named(body)
        calls = [call for value in values if (call := self._call(value)) is not None]
        return ("" if calls else MISTRAL + body), calls

    def _named(self, body: str) -> list[Any]:
        """``name{…}`` or ``name[ARGS]{…}``, each after a marker but the first."""
        found = []
        for part in body.split(MISTRAL):
            name, brace, rest = part.partition("{")
            name = name.removesuffix(MISTRAL_ARGUMENTS).strip()
            found.append({"name": name, "arguments": _value(brace + rest)})
        return found


class LlamaParser(ToolParser):
    """The whole answer is calls, or text: known from its first character on."""

    def __init__(self, names: Collection[str], new_id: Callable[[], str] | None = None) -> None:
        super().__init__(names, new_id)
        self._head = ""
        self._is_text = False

    def feed(self, text: str) -> Found:
        if self._is_text:
            return text, []
        self._head += text
        start = self._head.lstrip()
        if start and not start.startswith(("{", PYTHON_TAG)) and not PYTHON_TAG.startswith(start):
            self._is_text, text, self._head = True, self._head, ""
            return text, []
        return "", []

    def finish(self) -> Found:
        values = _values(self._head.strip().removeprefix(PYTHON_TAG))
        calls = [call for value in values if (call := self._call(value)) is not None]
        return ("" if calls else self._head), calls


def parser_for(template: str | None, names: Collection[str]) -> ToolParser:
    """The parser of the form that a model's chat template teaches; Hermes where it tells none."""
    template = template or ""
    if OPEN not in template:
        if MISTRAL in template:
            return MistralParser(names)
        if PYTHON_TAG in template or '"parameters": dictionary' in template:
            return LlamaParser(names)
    return HermesParser(names)


def _value(text: str) -> Any:
    """The JSON value that a text is; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _values(text: str) -> list[Any]:
    """JSON values one behind the other, parted by semicolons or space; none where one is not."""
    found: list[Any] = []
    at = 0
    try:
        while at < len(text):
            value, at = _decode(text, at)
            found.append(value)
            while at < len(text) and text[at] in "; \t\r\n":
                at += 1
    except (ValueError, RecursionError):
        return []
    return found

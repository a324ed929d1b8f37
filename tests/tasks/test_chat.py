"""Chat templates: those of real models, and hostile ones."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openmaas.errors import InvalidRequest, PayloadTooLarge
from openmaas.inference import Message, Tool, ToolCall
from openmaas.tasks import chat
from openmaas.tasks.chat import TemplateRenderer

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}{{ '<start_of_turn>model\n' }}"
)
TOOLS = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}"
    "{% if message.tool_calls %}{% for call in message.tool_calls %}"
    "<tool_call>{{ call.function.name }} {{ call.function.arguments.city }}</tool_call>"
    "{% endfor %}{% endif %}\n{% endfor %}"
)
SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>"}
HELLO = [Message(role="user", content=" hello ")]
WEATHER = Tool(
    name="weather",
    description="Says <the> weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
)
CALLED = [
    Message(role="user", content="Paris?"),
    Message(
        role="assistant",
        tool_calls=[ToolCall(id="call_1", name="weather", arguments='{"city": "Paris"}')],
    ),
    Message(role="tool", content="sunny", tool_call_id="call_1"),
]


@pytest.fixture(scope="module")
def renderer() -> Iterator[TemplateRenderer]:
    renderer = TemplateRenderer()
    yield renderer
    renderer.close()


def test_the_models_own_form(renderer: TemplateRenderer) -> None:
    assert renderer.render(SMOLLM2, HELLO, [], SPECIAL) == (
        "<|im_start|>system\nYou are SmolLM<|im_end|>\n"
        "<|im_start|>user\n hello <|im_end|>\n<|im_start|>assistant\n"
    )
    assert renderer.render(GEMMA, HELLO, [], SPECIAL) == (
        "<bos><start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_template_may_refuse(renderer: TemplateRenderer) -> None:
    system = [Message(role="system", content="be good")]
    with pytest.raises(InvalidRequest, match="System role not supported"):
        renderer.render(GEMMA, system, [], SPECIAL)


def test_no_template_no_chat(renderer: TemplateRenderer) -> None:
    with pytest.raises(InvalidRequest, match="no chat template"):
        renderer.render(None, HELLO, [], SPECIAL)


def test_tools_in_the_models_own_form(renderer: TemplateRenderer) -> None:
    text = renderer.render(TOOLS, CALLED, [WEATHER], SPECIAL)
    described = json.loads(text.splitlines()[0])
    assert described["function"]["parameters"] == WEATHER.parameters
    assert "Says <the> weather" in text  # no HTML escapes
    assert "[assistant] <tool_call>weather Paris</tool_call>" in text
    assert "[tool] sunny" in text


def test_tools_described_to_a_model_that_does_not_know_them(renderer: TemplateRenderer) -> None:
    text = renderer.render(SMOLLM2, CALLED, [WEATHER], SPECIAL)
    system, _, rest = text.partition("<|im_end|>")
    assert system.startswith("<|im_start|>system\n# Tools")
    line = next(line for line in system.splitlines() if line.startswith('{"type"'))
    assert json.loads(line)["function"]["name"] == "weather"
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>' in rest
    assert "<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>" in rest


def test_tools_are_added_to_a_system_message_that_is_there(renderer: TemplateRenderer) -> None:
    messages = [Message(role="system", content="Be brief."), *HELLO]
    text = renderer.render(SMOLLM2, messages, [WEATHER], SPECIAL)
    assert text.count("<|im_start|>system") == 1
    assert "Be brief.\n\n# Tools" in text


def test_arguments_that_are_no_json_stay_text(renderer: TemplateRenderer) -> None:
    messages = [
        Message(
            role="assistant", tool_calls=[ToolCall(id="c", name="weather", arguments="{broken")]
        )
    ]
    template = "{% if tools %}{% endif %}{{ messages[0].tool_calls[0].function.arguments }}"
    assert renderer.render(template, messages, [], SPECIAL) == "{broken"


def test_what_templates_of_real_models_use(renderer: TemplateRenderer) -> None:
    template = (
        "{%- set ns = namespace(found=false) -%}"
        "{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.found = true -%}"
        "{%- break -%}{%- endif -%}{%- endfor -%}"
        "{{ ns.found }} {{ strftime_now('%Y')|length }} {{ {'a': [1]}|tojson(indent=2) }}"
        "{% generation %}{{ 'x'.strip() }}{% endgeneration %}{{ messages[::-1]|length }}"
        "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}"
    )
    assert renderer.render(template, HELLO, [], SPECIAL) == 'True 4 {\n  "a": [\n    1\n  ]\n}x11'


HOSTILE = {
    "a loop in a loop": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "a long range": "{{ range(10**9)|list }}",
    "a large number": "{{ 10 ** 10 ** 8 }}",
    "a large product": (
        "{% set ns = namespace(n=2**2000) %}{% for i in range(30) %}{% set ns.n = ns.n * ns.n %}"
        "{% endfor %}{{ ns.n }}"
    ),
    "a long text": "{{ 'a' * 10000000000 }}",
    "doubled text": (
        "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}"
        "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s|length }}"
    ),
    "padding": "{{ 'a'.ljust(10000000000) }}",
    "formatting": "{{ '%10000000000d' % 1 }}",
    "formatting by method": "{{ '{:10000000000}'.format(1) }}",
    "a lock on Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "an import": "{% import 'os' as os %}",
    "an include": "{% include '/etc/passwd' %}",
    "a change of the messages": "{{ messages.clear() }}{{ messages.append(1) }}",
    "no template": "{% for %}",
    "a missing name": "{{ nothing.at.all }}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "much output": "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "a swallowed alarm": (
        "{% macro f(x) %}{% for a in range(99999) %}{% endfor %}{{ f(x) }}{% endmacro %}"
        "{{ messages|map('string')|map('length')|list }}"
        "{% for a in range(99999) %}{{ f(1) }}{% endfor %}"
    ),
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_hostile_templates_are_stopped(renderer: TemplateRenderer, template: str) -> None:
    began = time.monotonic()
    with pytest.raises((InvalidRequest, PayloadTooLarge)):
        renderer.render(template, HELLO, [], SPECIAL)
    assert time.monotonic() - began < 10  # hangs here, unless it is stopped
    # Nothing of it is left: the next rendering is what it always is.
    assert renderer.render(GEMMA, HELLO, [], SPECIAL).startswith("<bos>")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception.__globals__ }}",
        "{{ ''|attr('__class__') }}",
        "{{ self._TemplateReference__context }}",
    ],
)
def test_python_behind_the_template_is_out_of_reach(
    renderer: TemplateRenderer, template: str
) -> None:
    assert renderer.render(template, HELLO, [], SPECIAL) == ""


def test_a_template_out_of_proportion_is_not_compiled(renderer: TemplateRenderer) -> None:
    with pytest.raises(InvalidRequest):
        renderer.render("a" * 10_000_000, HELLO, [], SPECIAL)


def test_a_process_that_dies_is_replaced(renderer: TemplateRenderer) -> None:
    before = renderer.render(GEMMA, HELLO, [], SPECIAL)
    assert renderer._process is not None
    renderer._process.kill()
    renderer._process.wait()
    assert renderer.render(GEMMA, HELLO, [], SPECIAL) == before


def test_the_process_is_confined(renderer: TemplateRenderer) -> None:
    renderer.render(GEMMA, HELLO, [], SPECIAL)
    assert renderer._process is not None
    process = Path("/proc", str(renderer._process.pid))
    assert "NoNewPrivs:\t1" in (process / "status").read_text()
    assert f"Max address space         {chat.MEMORY}" in (process / "limits").read_text()

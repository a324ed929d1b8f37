"""The fake keeps its own promises: its answer, its log, its faults."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmaas.errors import ConfigurationError
from openmaas.inference import (
    Chat,
    Complete,
    Embed,
    Embedded,
    Message,
    Predict,
    Predicted,
    Sampling,
    Tensor,
)
from openmaas.runtimes import echo
from openmaas.runtimes.echo import Echo, piece, tokenize
from openmaas.runtimes.echo_batch import EchoEmbeddings, EchoNetwork
from openmaas.runtimes.echo_options import read
from tests.language import ask, run, text_of

GREEDY = Sampling(max_tokens=6)


def chat(*texts: str, **sampling: Any) -> Chat:
    roles = ("user", "assistant")
    return Chat(
        messages=[
            Message(role=roles[at % 2], content=text)  # type: ignore[arg-type]
            for at, text in enumerate(texts)
        ],
        sampling=Sampling(**sampling),
    )


@given(st.text())
def test_text_survives_its_tokens(text: str) -> None:
    text = text.encode(errors="replace").decode()
    plain = text.replace("<|", "< |")
    assert b"".join(map(piece, tokenize(plain))).decode() == plain


def test_the_last_user_message_comes_back() -> None:
    runtime = Echo(read({"answer_tokens": 4}))
    assert text_of(ask(runtime, chat("first", "no", "a b c d"))[0]) == "a b c d"
    assert text_of(ask(runtime, chat("ab", max_tokens=3))[0]) == "ab ab ab"
    assert text_of(ask(runtime, Complete(prompts=["x y"], sampling=GREEDY))[0]).startswith("x y x")
    assert text_of(ask(runtime, chat("", max_tokens=1))[0]) == "…"


def test_the_log_is_what_was_produced(tmp_path: Path) -> None:
    log = tmp_path / "tokens.jsonl"
    runtime = Echo(read({"token_log": str(log)}))
    _, usage = ask(runtime, chat("a b c", max_tokens=9))
    _, more = ask(runtime, Complete(prompts=["d", "e"], sampling=GREEDY))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(line["out"] for line in lines) == usage.output_tokens + more.output_tokens == 21
    assert sum(line["in"] for line in lines) == usage.input_tokens + more.input_tokens
    runtime.close()


def test_a_pace_is_kept_by_each_sequence() -> None:
    runtime = Echo(read({"tokens_per_second": 1000}))
    sequences = {id: (tokenize("a"), Sampling(max_tokens=5)) for id in range(3)}
    assert {len(tokens) for tokens in run(runtime, sequences).values()} == {5}


def test_numbers_that_are_none() -> None:
    runtime = Echo(read({}))
    deltas, _ = ask(runtime, chat("<<nan:2>> x", max_tokens=4, logprobs=0))
    values = [entry.logprob for delta in deltas for entry in delta.logprobs or ()]
    assert [value is not None and math.isnan(value) for value in values] == [False] * 2 + [True] * 2


def test_out_of_memory() -> None:
    runtime = Echo(read({"oom_mib": 8}))
    runtime.add(1, tokenize("<<oom>>"), GREEDY)
    with pytest.raises(MemoryError, match="8 MiB"):
        runtime.step()


_DIES = """
from openmaas.inference import Sampling
from openmaas.runtimes.echo import Echo, tokenize
from openmaas.runtimes.echo_options import read
runtime = Echo(read({options}))
runtime.add(1, tokenize({prompt!r}), Sampling(max_tokens=9))
for count in range(9):
    print(len(runtime.step()), flush=True)
"""


@pytest.mark.parametrize(
    ("options", "prompt", "code", "steps"),
    [
        ({}, "<<crash>>", 134, 0),
        ({}, "<<crash:3>>", 134, 3),
        ({}, "<<segv>>", -signal.SIGSEGV, 0),
        ({"fault": "crash", "fault_after": 2}, "hello", 134, 2),
    ],
)
def test_dies(options: dict[str, Any], prompt: str, code: int, steps: int) -> None:
    program = _DIES.format(options=options, prompt=prompt)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (code, "1\n" * steps)


def test_hangs() -> None:
    program = _DIES.format(options={}, prompt="<<hang:1>>")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.kill()


@pytest.mark.parametrize(
    "options",
    [
        {"task": "sing"},
        {"tokens_per_second": -1},
        {"fault": "rain"},
        {"nothing": 1},
        {"oom_mib": "x"},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        echo.open(tmp_path, options)


def test_vectors_have_unit_length_and_repeat() -> None:
    model = EchoEmbeddings(read({"task": "embed", "dimensions": 8}))
    texts: list[str | list[int]] = ["a", "b", [1, 2]]
    request = Embed(inputs=texts)
    assert model.size(request) == 4
    first, second, short = model.run([request, request, Embed(inputs=texts, dimensions=3)])
    assert isinstance(first, Embedded)
    assert isinstance(short, Embedded)
    assert first == second
    vectors = np.frombuffer(first.data, "<f4").reshape(3, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert len({row.tobytes() for row in vectors}) == 3
    assert first.usage.input_tokens == 4
    assert short.dimensions == 3


def test_the_network_gives_back_what_it_got() -> None:
    model = EchoNetwork(read({"task": "predict"}))
    data = np.arange(4, dtype="<f4").tobytes()
    tensor = Tensor(name="x", datatype="FP32", shape=[2, 2], data=data)
    assert model.run([Predict(inputs=[tensor])])[0].outputs == [tensor]  # type: ignore[union-attr]
    spoiled = EchoNetwork(read({"task": "predict", "fault": "nan"}))
    answer = spoiled.run([Predict(inputs=[tensor])])[0]
    assert isinstance(answer, Predicted)
    assert np.isnan(np.frombuffer(answer.outputs[0].data, "<f4")).all()
    assert answer.usage.rows == 2

"""llama.cpp with a real model, where it differs from other engines."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openmaas.errors import ArtifactRefused, ConfigurationError
from openmaas.inference import Complete, Sampling
from openmaas.runtimes import llamacpp
from openmaas.runtimes.gguf_vocabulary import read_pieces
from openmaas.runtimes.llamacpp import LlamaCpp
from tests.language import ask, ids, run, text_of, until_idle


@pytest.fixture(scope="module")
def runtime(gemma_folder: Path) -> Iterator[LlamaCpp]:
    opened = llamacpp.open(gemma_folder, {"context_tokens": 2048, "parallel": 4, "threads": 1})
    yield opened
    opened.close()


def complete(text: str, **sampling: Any) -> Complete:
    return Complete(prompts=[text], sampling=Sampling(**({"temperature": 0} | sampling)))


def test_answers(runtime: LlamaCpp) -> None:
    prompt = "France: Paris. Italy: Rome. Germany: Berlin. Spain:"
    deltas, usage = ask(runtime, complete(prompt, max_tokens=3))
    assert "Madrid" in text_of(deltas)
    assert usage.output_tokens == 3
    assert usage.input_tokens == len(runtime.encode(prompt)) + 1  # BOS


def test_raw_prompts_start_with_bos(runtime: LlamaCpp) -> None:
    assert runtime.start() == runtime.encode("<bos>")
    assert len(runtime.start()) == 1


def test_tokens_within_characters_are_found_again(runtime: LlamaCpp) -> None:
    text = "🪿🦤🙂"
    assert len(runtime.encode("🪿")) == 4  # single bytes
    deltas, usage = ask(runtime, complete(text * 5, max_tokens=24, logprobs=0))
    answer = text_of(deltas)
    assert "🪿" in answer
    entries = [entry for delta in deltas for entry in delta.logprobs or ()]
    assert "".join(entry.text for entry in entries) == answer
    assert b"".join(entry.bytes for entry in entries).decode(errors="ignore") == answer
    assert len(entries) == usage.output_tokens == 24
    assert any(entry.logprob is None for entry in entries)  # first bytes of a character
    assert all(entry.logprob is not None for entry in entries if entry.text)


def test_a_cancelled_sequence_frees_its_place(runtime: LlamaCpp) -> None:
    prompt = runtime.encode("one two three four " * 100)
    long = Sampling(temperature=0, max_tokens=1000, ignore_eos=True)
    for id in range(1, 5):
        runtime.add(id, prompt, long)
    assert runtime.step() == []  # the prompts are being read
    for id in range(1, 5):
        runtime.cancel(id)
    assert not runtime.busy()
    # All places were taken: this one runs only because the engine dropped the others.
    short = Sampling(temperature=0, max_tokens=2)
    assert run(runtime, {9: (runtime.encode("Hello"), short)})[9]


def test_nothing_of_one_request_is_left_for_another(runtime: LlamaCpp) -> None:
    secret = "The canary is BLUE-HERON-4711. " * 2 + "The canary is"
    said, _ = ask(runtime, complete(secret, max_tokens=12))
    assert "4711" in text_of(said)
    for _ in range(3):
        other, usage = ask(runtime, complete("The canary is", max_tokens=12))
        assert "4711" not in text_of(other)
        assert usage.cached_tokens == 0


def test_nobody_else_can_connect(runtime: LlamaCpp) -> None:
    """The engine listens on a socket in a folder that is this user's alone, and on no port."""
    place = Path(runtime._place.name)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    own = {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}") or os.path.islink(f"/proc/self/fd/{fd}")
    }
    for table in ("tcp", "tcp6"):
        rows = [line.split() for line in Path(f"/proc/self/net/{table}").read_text().splitlines()]
        listening = {f"socket:[{row[9]}]" for row in rows[1:] if row[3] == "0A"}
        assert not listening & own


def test_json_by_schema(runtime: LlamaCpp) -> None:
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 2}
    request = complete('["a", "b"]\n["b", "a"]\n', max_tokens=40, json_schema=json.dumps(schema))
    value = json.loads(text_of(ask(runtime, request)[0]))
    assert len(value) == 2
    assert set(value) <= {"a", "b"}


def test_penalties_and_bias_together(runtime: LlamaCpp) -> None:
    prompt = runtime.encode("a a a a")
    first = ids(run(runtime, {1: (prompt, Sampling(temperature=0, max_tokens=1))})[1])[0]
    sampling = Sampling(
        temperature=0, max_tokens=10, logit_bias={first: -100}, frequency_penalty=1.0
    )
    assert first not in ids(run(runtime, {1: (prompt, sampling)})[1])


@pytest.mark.parametrize(
    "options", [{"parallel": 0}, {"context_tokens": 1.5}, {"threads": True}], ids=str
)
def test_options_out_of_range_are_refused(gemma_folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        llamacpp.open(gemma_folder, options)


@pytest.mark.parametrize("size", [0, 3, 24, 1000, 100_000])
def test_truncated_files_are_refused(gemma_folder: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.gguf"
    with (gemma_folder / "model.gguf").open("rb") as file:
        path.write_bytes(file.read(size))
    shutil.copyfile(gemma_folder / "manifest.json", tmp_path / "manifest.json")
    with pytest.raises(ArtifactRefused):
        llamacpp.open(tmp_path, {})


@pytest.mark.parametrize("place", [4, 8, 16, 24, 32])
def test_lengths_that_lie_are_refused(gemma_folder: Path, tmp_path: Path, place: int) -> None:
    path = tmp_path / "model.gguf"
    with (gemma_folder / "model.gguf").open("rb") as file:
        head = bytearray(file.read(4096))
    head[place : place + 8] = b"\xff" * 8
    path.write_bytes(head)
    with pytest.raises(ArtifactRefused):
        read_pieces(path)


def test_a_busy_runtime_closes(gemma_folder: Path) -> None:
    opened = llamacpp.open(gemma_folder, {"context_tokens": 256, "parallel": 2, "threads": 1})
    prompt = opened.encode("Once upon a time")
    for id in range(4):
        opened.add(id, prompt, Sampling(temperature=0, max_tokens=200, ignore_eos=True))
    opened.step()
    opened.close()
    assert not Path(opened._place.name).exists()
    assert until_idle(opened) == []

"""Compiles JSON schemas in a process of its own, which may crash or be killed for it.

Run as ``python -m openmaas.runtimes.grammar_check FOLDER`` by ``grammar_gate``; FOLDER is the
language model's artifact. Reads a uint32 length and a schema, writes ``ok`` or ``no``, again
and again. It ends when nothing was asked for a while, and with the process that started it.

The compiler (xgrammar) is reached through OpenVINO GenAI only, which wants a model around it:
here the smallest Llama there is, with the vocabulary of the real one.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from openmaas.runtimes.openvino_grammar import grammar_tokenizer
from openmaas.runtimes.vocabulary import Vocabulary

IDLE_SECONDS = 60.0
_MEMORY = 2 << 30  # bytes that compiling may take
_WIDTH = 32  # of the small model
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def main(folder: str) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_DUMPABLE, 0)  # no core file of schemas
    vocabulary = Vocabulary(Path(folder) / "tokenizer.json")
    pipeline = _pipeline(vocabulary)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _say(b"ready")
    stdin = sys.stdin.buffer
    while select.select([stdin], [], [], IDLE_SECONDS)[0]:
        header = os.read(0, 4)
        if len(header) < 4:
            return
        _say(b"ok" if _compiles(pipeline, _exactly(struct.unpack("<I", header)[0])) else b"no")


def _compiles(pipeline: Any, schema: bytes) -> bool:
    config = genai.GenerationConfig()
    config.max_new_tokens = 1
    config.eos_token_id, config.stop_token_ids = 0, {0}
    config.structured_output_config = genai.StructuredOutputConfig(json_schema=schema.decode())
    handle = pipeline.add_request(0, ov.Tensor(np.zeros((1, 1), np.int64)), config)
    try:
        while pipeline.has_non_finished_requests():
            pipeline.step()
    except RuntimeError:
        handle.cancel()
        pipeline.step()
        return False
    return True


def _pipeline(vocabulary: Vocabulary) -> Any:
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 8
    scheduler.enable_prefix_caching = False
    tokenizer = grammar_tokenizer(vocabulary.raw)
    with tempfile.TemporaryDirectory(prefix="openmaas-") as place:
        path = Path(place) / "model.gguf"
        path.write_bytes(smallest_llama(vocabulary.size))
        return genai.ContinuousBatchingPipeline(
            path, tokenizer, scheduler, "CPU", INFERENCE_NUM_THREADS=1
        )


def smallest_llama(vocabulary: int) -> bytes:
    """A GGUF file (version 3) of one layer with weights of zero."""
    width = _WIDTH
    numbers = {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": width,
        "feed_forward_length": width,
        "attention.head_count": 1,
        "attention.head_count_kv": 1,
        "rope.dimension_count": width,
        "vocab_size": vocabulary,
    }
    entries = [
        _text("general.architecture") + struct.pack("<I", 8) + _text("llama"),
        _text("general.file_type") + struct.pack("<II", 4, 1),
        _text("llama.rope.freq_base") + struct.pack("<If", 6, 10000.0),
        _text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5),
        *(_text(f"llama.{name}") + struct.pack("<II", 4, value) for name, value in numbers.items()),
    ]
    shapes = {"token_embd": (width, vocabulary), "output_norm": (width,)}
    shapes |= {f"blk.0.{name}_norm": (width,) for name in ("attn", "ffn")}
    shapes |= {f"blk.0.attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{name}": (width, width) for name in ("gate", "up", "down")}
    infos, data = b"", b""
    for name, shape in shapes.items():
        infos += _text(f"{name}.weight") + struct.pack("<I", len(shape))
        infos += struct.pack(f"<{len(shape)}Q", *shape)
        infos += struct.pack("<IQ", 0 if len(shape) == 1 else 1, len(data))  # F32 or F16
        size = width * 4 if len(shape) == 1 else width * shape[1] * 2
        data += bytes(size + -size % 32)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(shapes), len(entries)) + b"".join(entries) + infos
    return head + bytes(-len(head) % 32) + data


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _exactly(count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = os.read(0, count - len(parts))
        if not part:
            sys.exit(0)
        parts += part
    return parts


def _say(word: bytes) -> None:
    os.write(1, word + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])

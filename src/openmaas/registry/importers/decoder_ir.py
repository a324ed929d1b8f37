"""A decoder's weights → OpenVINO IR with 8-bit matrices, checked against plain NumPy.

OpenVINO GenAI builds the graph, from a GGUF that is written here in the one form which it
reads exactly: of Q4_1 and Q4_K it rounds the blocks' minima to whole steps, which is heard (a
135M model's log-probabilities moved by 0.6 on average and 3.4 at worst; through Q8_0 by 0.03).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from openmaas.errors import ConversionFailed
from openmaas.registry.gguf import read_header
from openmaas.registry.importers import (
    decoder_graph,
    decoder_reference,
    gguf_writer,
    language_check,
)
from openmaas.registry.importers.decoder_reference import Shape, Weights
from openmaas.registry.importers.gguf_weights import GgufWeights
from openmaas.registry.manifest import Verification

TOKENIZER_FILES = tuple(
    f"openvino_{part}.{end}" for part in ("tokenizer", "detokenizer") for end in ("xml", "bin")
)
MODEL_FILES = ("openvino_model.xml", "openvino_model.bin")
GRAPH_TOLERANCE = 0.02  # nats; seen: 0.0003 of a 135M model
_Q8_0_FILE = 7  # llama.cpp's number of a file that is mostly Q8_0


class Model(msgspec.Struct, frozen=True):
    metadata: dict[str, Any]  # of a GGUF, with its tokenizer
    shape: Shape
    original: Weights  # what the result is compared with
    stored: Weights  # the same in the order of rows that a GGUF has


def build(
    place: Path,
    out: Path,
    model: Model,
    against: str,
    say: Callable[[str], None],
) -> tuple[Verification, dict[str, str]]:
    """Writes the IR to ``out``, where ``tokenizer.json`` lies already.

    Args:
        place: an empty folder to work in.

    Raises:
        ConversionFailed: OpenVINO GenAI cannot read it, or the IR says something else.
    """
    texts = language_check.encode(out / "tokenizer.json")
    say("packing the weights into 8 bits")
    gguf = place / "model.gguf"
    gguf_writer.write(gguf, model.metadata | {"general.file_type": _Q8_0_FILE}, model.stored)
    say("building the OpenVINO graph")
    versions = _read_by_genai(gguf)
    for name in MODEL_FILES:
        if not (place / name).is_file():
            raise ConversionFailed(f"OpenVINO GenAI wrote no {name}.")
        (place / name).rename(out / name)
    decoder_graph.simplify(out / MODEL_FILES[0])
    say("comparing it with a forward pass in NumPy")
    got = language_check.scores(out / MODEL_FILES[0], texts)
    _check_graph(gguf, model.shape, texts[0], got[0])
    gguf.unlink()
    expected = decoder_reference.scores(model.shape, model.original, texts)
    return language_check.compare(expected, got, against), versions


def _check_graph(gguf: Path, shape: Shape, text: list[int], got: list[float]) -> None:
    """Of the same 8-bit weights, the graph and NumPy must say the same to within rounding."""
    header = read_header(gguf)
    shape = msgspec.structs.replace(shape, interleaved=header.architecture == "llama")
    expected = decoder_reference.scores(shape, GgufWeights(gguf, header), [text])[0]
    worst = max(abs(a - b) for a, b in zip(expected, got, strict=True))
    if not worst <= GRAPH_TOLERANCE:
        raise ConversionFailed(
            f"OpenVINO's graph gives other log-probabilities than NumPy, by {worst:.3g} nats."
        )


def _read_by_genai(gguf: Path) -> dict[str, str]:
    import openvino
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 1  # GiB
    try:
        # Saves the graph beside the file, as a side effect.
        openvino_genai.ContinuousBatchingPipeline(
            str(gguf), scheduler, "CPU", {"enable_save_ov_model": True}
        )
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ConversionFailed(f"OpenVINO GenAI cannot read it: {lines[-1][:300]}") from None
    return {"openvino": openvino.__version__, "openvino-genai": openvino_genai.__version__}

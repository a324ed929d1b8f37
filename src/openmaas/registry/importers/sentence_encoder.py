"""BERT-family sentence encoders → an OpenVINO graph, straight from their safetensors.

The graph is checked against a second, independent forward pass in NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as ops

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers import encoder_graph, encoder_reference, encoder_weights
from openmaas.registry.importers.encoder_weights import Encoder
from openmaas.registry.manifest import Description, Port, Verification
from openmaas.registry.recognise import MAX_TOKENIZER, read_json

TOLERANCE = 1e-4  # of a component of a unit vector


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: settings or weights are damaged or missing.
        ConversionFailed: a variant that is not built here, or the graph computes other vectors.
    """
    copy_tokenizer(source, out)
    encoder = encoder_weights.read(source)
    say(f"building the graph of a {encoder.family} encoder")
    model = build(encoder)
    openvino.save_model(model, str(out / "openvino_model.xml"), compress_to_fp16=False)
    say("comparing its vectors with a forward pass in NumPy")
    verification = _verify(encoder, out)
    return Description(
        format="openvino-encoder",
        task="embed",
        architecture=encoder.family,
        inputs=[Port(port.any_name, "INT64", [-1, -1]) for port in model.inputs],
        outputs=[Port("embeddings", "FP32", [-1, encoder.width])],
        # Its vectors' direction survives bfloat16 (cosine ≥ 0.9999), at several times the speed.
        precision="bf16",
        context_tokens=encoder.context_tokens,
        dimensions=encoder.width,
        verification=verification,
        converted_by={"openvino": openvino.__version__},
    )


def copy_tokenizer(source: Path, out: Path) -> None:
    """``tokenizer.json`` without its own length and padding, which are the server's business,
    batch by batch; the file's would cut.

    Raises:
        ArtifactRefused: it is missing or damaged.
    """
    tokenizer = read_json(source / "tokenizer.json", MAX_TOKENIZER)
    if not isinstance(tokenizer, dict):
        raise ArtifactRefused("tokenizer.json is no object.")
    tokenizer["truncation"] = tokenizer["padding"] = None
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def build(encoder: Encoder) -> openvino.Model:
    """Inputs as ``encoder_graph.build``. Output ``embeddings``: float32 [batch, width], each row
    of length 1."""
    inputs, vectors = encoder_graph.build(encoder)
    unit = encoder_graph.unit(vectors)
    unit.output(0).set_names({"embeddings"})
    return openvino.Model([ops.result(unit)], inputs, f"{encoder.family} sentence encoder")


def _verify(encoder: Encoder, folder: Path) -> Verification:
    compiled = openvino.Core().compile_model(
        str(folder / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    worst = 0.0
    batches = encoder_reference.batches(folder / "tokenizer.json", encoder.context_tokens)
    for ids, mask, _ in batches:
        if ids.max() >= len(encoder.words):
            raise ConversionFailed("tokenizer.json has more tokens than the model has rows.")
        tensors = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        asked = {port.any_name: tensors[port.any_name] for port in compiled.inputs}
        got = compiled(asked)[0]
        worst = max(worst, float(np.abs(got - encoder_reference.forward(encoder, ids, mask)).max()))
    if not worst <= TOLERANCE:
        raise ConversionFailed(f"The graph's vectors differ by {worst:.3g} from the original's.")
    return Verification(
        against="a forward pass of the same weights in NumPy, float32",
        samples=sum(len(ids) for ids, _, _ in batches),
        max_abs_error=worst,
        compared="components of the unit vectors of real sentences, padded in batches",
    )

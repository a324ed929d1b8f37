"""BERT-family classifiers of tokens, which find names in texts → an OpenVINO graph.

Built straight from safetensors and checked against a second, independent forward pass in NumPy.
Source: Devlin et al. 2019, section 5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as ops

from openmaas.errors import ConversionFailed
from openmaas.registry.importers import (
    encoder_graph,
    encoder_reference,
    encoder_weights,
    token_head,
)
from openmaas.registry.importers.encoder_reference import Ids
from openmaas.registry.importers.encoder_weights import Array, Encoder
from openmaas.registry.importers.sentence_encoder import copy_tokenizer
from openmaas.registry.importers.text_classifier import TOLERANCE
from openmaas.registry.importers.token_head import TokenHead
from openmaas.registry.manifest import Description, Port, Verification


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: settings, weights or labels are damaged, missing or do not fit.
        ConversionFailed: a variant that is not built here, or the graph computes other logits.
    """
    copy_tokenizer(source, out)
    encoder, head = token_head.read(source, encoder_weights.read(source))
    say(f"building the graph of a {encoder.family} token classifier of {len(head.labels)} labels")
    model = build(encoder, head)
    openvino.save_model(model, str(out / "openvino_model.xml"), compress_to_fp16=False)
    say("comparing its logits with a forward pass in NumPy")
    return Description(
        format="openvino-tagger",
        task="tag",
        architecture=encoder.family,
        inputs=[Port(port.any_name, "INT64", [-1, -1]) for port in model.inputs],
        outputs=[Port("logits", "FP32", [-1, -1, len(head.labels)])],
        # What is found in a text, and perhaps hidden, must not turn on what is read beside it.
        precision="f32",
        context_tokens=encoder.context_tokens,
        labels=head.labels,
        verification=_verify(encoder, head, out),
        converted_by={"openvino": openvino.__version__},
    )


def build(encoder: Encoder, head: TokenHead) -> openvino.Model:
    """Inputs as ``encoder_graph.states``. Output ``logits``: float32 [batch, tokens, labels],
    anything at the padding."""
    inputs, hidden, ragged = encoder_graph.states(encoder)
    logits = ragged.unpack(encoder_graph.dense(hidden, head.layer))
    logits.output(0).set_names({"logits"})
    return openvino.Model([ops.result(logits)], inputs, f"{encoder.family} token classifier")


def forward(encoder: Encoder, head: TokenHead, ids: Ids, mask: Ids) -> Array:
    """Logits [batch, tokens, labels] in NumPy, of token ids [batch, tokens] of type 0."""
    states = encoder_reference.states(encoder, ids, mask, np.zeros_like(ids))
    return encoder_reference.dense(states, head.layer)


def _verify(encoder: Encoder, head: TokenHead, folder: Path) -> Verification:
    compiled = openvino.Core().compile_model(
        str(folder / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    worst = largest = 0.0
    tokens = 0
    batches = encoder_reference.batches(folder / "tokenizer.json", encoder.context_tokens)
    for ids, mask, _ in batches:
        if ids.max() >= len(encoder.words):
            raise ConversionFailed("tokenizer.json has more tokens than the model has rows.")
        tensors = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        real = mask == 1
        got = compiled({port.any_name: tensors[port.any_name] for port in compiled.inputs})[0][real]
        wanted = forward(encoder, head, ids, mask)[real]
        worst = max(worst, float(np.abs(got - wanted).max()))
        largest = max(largest, float(np.abs(wanted).max()))
        tokens += len(wanted)
    if not worst <= TOLERANCE * max(1.0, largest):
        raise ConversionFailed(f"The graph's logits differ by {worst:.3g} from the original's.")
    return Verification(
        against="a forward pass of the same weights in NumPy, float32",
        samples=sum(len(ids) for ids, _, _ in batches),
        max_abs_error=worst,
        compared=f"logits of {tokens} tokens of real sentences, padded in batches",
    )

"""BERT-family classifiers of texts, and of pairs of texts → an OpenVINO graph.

Built straight from safetensors and checked against a second, independent forward pass in NumPy.
Sources: Devlin et al. 2019 (BERT's pooler), Liu et al. 2019 and Sanh et al. 2019 (the heads of
RoBERTa and DistilBERT as transformers has them).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import openvino
from openvino import opset13 as ops

from openmaas.errors import ConversionFailed
from openmaas.registry.importers import (
    classifier_head,
    encoder_graph,
    encoder_reference,
    encoder_weights,
)
from openmaas.registry.importers.classifier_head import Head
from openmaas.registry.importers.encoder_reference import Ids
from openmaas.registry.importers.encoder_weights import Array, Encoder
from openmaas.registry.importers.sentence_encoder import copy_tokenizer
from openmaas.registry.manifest import Description, Port, Verification

TOLERANCE = 1e-3  # of a logit, relative to the largest where that is above 1


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: settings, weights or labels are damaged, missing or do not fit.
        ConversionFailed: a variant that is not built here, or the graph computes other logits.
    """
    copy_tokenizer(source, out)
    encoder = encoder_weights.read(source)
    head = classifier_head.read(source, encoder)
    if not head.unit:  # transformers' heads read the first token's state
        encoder = msgspec.structs.replace(encoder, pooling="cls")
    say(f"building the graph of a {encoder.family} classifier of {len(head.labels)} labels")
    model = build(encoder, head)
    openvino.save_model(model, str(out / "openvino_model.xml"), compress_to_fp16=False)
    say("comparing its logits with a forward pass in NumPy")
    return Description(
        format="openvino-classifier",
        task="classify",
        architecture=encoder.family,
        inputs=[Port(port.any_name, "INT64", [-1, -1]) for port in model.inputs],
        outputs=[Port("logits", "FP32", [-1, len(head.labels)])],
        precision="bf16",  # as sentence encoders
        context_tokens=encoder.context_tokens,
        labels=head.labels,
        multi_label=head.multi_label,
        pairs=head.pairs,
        verification=_verify(encoder, head, out),
        converted_by={"openvino": openvino.__version__},
    )


def build(encoder: Encoder, head: Head) -> openvino.Model:
    """Inputs as ``encoder_graph.build``. Output ``logits``: float32 [batch, labels]."""
    inputs, vector = encoder_graph.build(encoder)
    if head.unit:
        vector = encoder_graph.unit(vector)
    for layer in head.layers[:-1]:
        vector = encoder_graph.activate(encoder_graph.dense(vector, layer), head.activation)
    logits = encoder_graph.dense(vector, head.layers[-1])
    logits.output(0).set_names({"logits"})
    return openvino.Model([ops.result(logits)], inputs, f"{encoder.family} classifier")


def forward(encoder: Encoder, head: Head, ids: Ids, mask: Ids, types: Ids) -> Array:
    """Logits [batch, labels] in NumPy, of token ids [batch, tokens]."""
    vector = encoder_reference.pooled(encoder, ids, mask, types)
    if head.unit:
        vector = encoder_reference.unit(vector)
    for layer in head.layers[:-1]:
        vector = encoder_reference.activate(encoder_reference.dense(vector, layer), head.activation)
    return encoder_reference.dense(vector, head.layers[-1])


def _verify(encoder: Encoder, head: Head, folder: Path) -> Verification:
    compiled = openvino.Core().compile_model(
        str(folder / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    worst = largest = 0.0
    batches = encoder_reference.batches(
        folder / "tokenizer.json", encoder.context_tokens, pairs=head.pairs
    )
    for ids, mask, types in batches:
        if ids.max() >= len(encoder.words):
            raise ConversionFailed("tokenizer.json has more tokens than the model has rows.")
        if not head.pairs:
            types = np.zeros_like(ids)
        if encoder.types is not None and types.max() >= len(encoder.types) > 1:
            raise ConversionFailed("tokenizer.json has more token types than the model.")
        tensors = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        got = compiled({port.any_name: tensors[port.any_name] for port in compiled.inputs})[0]
        wanted = forward(encoder, head, ids, mask, types)
        worst = max(worst, float(np.abs(got - wanted).max()))
        largest = max(largest, float(np.abs(wanted).max()))
    if not worst <= TOLERANCE * max(1.0, largest):
        raise ConversionFailed(f"The graph's logits differ by {worst:.3g} from the original's.")
    return Verification(
        against="a forward pass of the same weights in NumPy, float32",
        samples=sum(len(ids) for ids, _, _ in batches),
        max_abs_error=worst,
        compared=f"logits of real {'pairs of ' if head.pairs else ''}sentences, padded in batches",
    )

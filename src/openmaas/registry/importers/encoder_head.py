"""A linear head that was trained on a stored sentence encoder's vectors → one classifier.

The folder: ``encoder/``, a copy of the ``openvino-encoder`` artifact; ``head.safetensors`` with
``weight`` [labels, dimensions] and ``bias`` [labels]; ``config.json`` as transformers' classifiers
have it; ``rows.json`` (see ``text_rows``). A head of one row answers the second of two labels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as ops

from openmaas.errors import ArtifactRefused
from openmaas.registry import artifacts
from openmaas.registry.importers import classifier_head, network_check, text_rows
from openmaas.registry.importers.safetensors_file import Array, SafetensorsFolder
from openmaas.registry.importers.sentence_encoder import copy_tokenizer
from openmaas.registry.manifest import MANIFEST_BYTES, MANIFEST_NAME, Description, Manifest, Port
from openmaas.registry.manifest import decode as decode_manifest
from openmaas.registry.recognise import read_json


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: a part is missing or damaged, or head and encoder do not fit.
        ConversionFailed: the classifier gives other probabilities than were trained.
    """
    encoder = _encoder(source / "encoder")
    weight, bias = _head(source, encoder.dimensions)
    found = classifier_head.meaning(read_json(source / "config.json"), len(bias))
    copy_tokenizer(source / "encoder", out)
    say(f"putting a head of {len(found.labels)} labels on a {encoder.architecture} encoder")
    network = network_check.read_model(source / "encoder" / "openvino_model.xml")
    graph = build(network, weight, bias)
    openvino.save_model(graph, str(out / "openvino_model.xml"), compress_to_fp16=False)
    say("comparing it with what was trained")
    return Description(
        format="openvino-classifier",
        task="classify",
        architecture=encoder.architecture,
        inputs=[Port(port.any_name, "INT64", [-1, -1]) for port in graph.inputs],
        outputs=[Port("logits", "FP32", [-1, len(bias)])],
        precision="f32",  # as it was compared: what is served is what was trained
        context_tokens=encoder.context_tokens,
        labels=found.labels,
        multi_label=found.multi_label,
        verification=text_rows.compare(
            out, encoder.context_tokens, found.multi_label, source / text_rows.ROWS
        ),
        converted_by={"openvino": openvino.__version__},
    )


def build(network: openvino.Model, weight: Array, bias: Array) -> openvino.Model:
    """Inputs as the encoder's. Output ``logits``: float32 [batch, labels]."""
    vector = network.outputs[0].get_node().input_value(0)
    product = ops.matmul(vector, ops.constant(weight), False, True)
    logits = ops.add(product, ops.constant(bias[None]))
    logits.output(0).set_names({"logits"})
    return openvino.Model([ops.result(logits)], network.get_parameters(), "encoder with a head")


def _encoder(folder: Path) -> Manifest:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ArtifactRefused("The folder has no encoder with its manifest.")
    with open(path, "rb") as file:
        manifest = decode_manifest(file.read(MANIFEST_BYTES + 1))
    if manifest.format != "openvino-encoder":
        raise ArtifactRefused(f"The encoder is an artifact of format {manifest.format}.")
    artifacts.verify(folder, manifest)
    return manifest


def _head(source: Path, dimensions: int) -> tuple[Array, Array]:
    """Weight and bias, of two labels at least."""
    tensors = SafetensorsFolder(source)
    weight, bias = tensors("weight"), tensors("bias")
    if weight.ndim != 2 or weight.shape[1] != dimensions or bias.shape != weight.shape[:1]:
        raise ArtifactRefused(f"The head does not fit an encoder of {dimensions} dimensions.")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ArtifactRefused("The head's weights are not all finite.")
    if len(bias) == 1:  # the softmax of 0 and a number is the sigmoid of that
        weight = np.concatenate([np.zeros_like(weight), weight])
        bias = np.concatenate([np.zeros_like(bias), bias])
    return weight, bias

"""ONNX networks of …ForTokenClassification, with tokenizer.json and config.json beside them.

Compared with ONNX's own reference evaluator on tokens of real sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import openvino

from openmaas.registry.importers import network_check, token_head
from openmaas.registry.importers.onnx import checked
from openmaas.registry.importers.onnx_classifier import context_tokens, logits, verify
from openmaas.registry.importers.sentence_encoder import copy_tokenizer
from openmaas.registry.manifest import Description, Port
from openmaas.registry.recognise import read_json


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: damaged, labels that do not fit, or weights elsewhere than beside it.
        ConversionFailed: other inputs or outputs than a token classifier's, or other numbers than
            ONNX gives.
    """
    (path,) = source.glob("*.onnx")
    checked(path)
    copy_tokenizer(source, out)
    config = read_json(source / "config.json")
    say("converting ONNX to OpenVINO IR")
    model = network_check.read_model(path)
    network_check.name_ports(model)
    labels = token_head.names(config, logits(model, "token"))
    openvino.save_model(model, str(out / "openvino_model.xml"), compress_to_fp16=False)
    say("comparing it with ONNX's reference evaluator")
    context = context_tokens(config)
    return Description(
        format="openvino-tagger",
        task="tag",
        architecture="onnx",
        inputs=[Port(port.any_name, "INT64", [-1, -1]) for port in model.inputs],
        outputs=[Port("logits", "FP32", [-1, -1, len(labels)])],
        precision="f32",
        context_tokens=context,
        labels=labels,
        verification=verify(path, out, context, tokens=True),
        converted_by={"openvino": openvino.__version__, "onnx": onnx.__version__},
    )

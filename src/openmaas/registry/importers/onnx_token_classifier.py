"""ONNX networks of …ForTokenClassification, with tokenizer.json and config.json beside them.

Compared with ONNX's own reference evaluator on tokens of real sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import openvino
from onnx.reference import ReferenceEvaluator

from openmaas.errors import ConversionFailed
from openmaas.registry.importers import encoder_reference, network_check, token_head
from openmaas.registry.importers.onnx import checked
from openmaas.registry.importers.onnx_classifier import INPUTS, context_tokens
from openmaas.registry.importers.sentence_encoder import copy_tokenizer
from openmaas.registry.importers.text_classifier import TOLERANCE
from openmaas.registry.manifest import Description, Port, Verification
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
    labels = token_head.names(config, _logits(model))
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
        verification=_verify(path, out, context),
        converted_by={"openvino": openvino.__version__, "onnx": onnx.__version__},
    )


def _logits(model: openvino.Model) -> int:
    """How many logits it answers a token."""
    names = {port.any_name for port in model.inputs}
    if not {"input_ids", "attention_mask"} <= names <= INPUTS:
        raise ConversionFailed(f"The network takes {', '.join(sorted(names))}, not just tokens.")
    shape = model.outputs[0].get_partial_shape() if len(model.outputs) == 1 else None
    if shape is None or shape.rank.is_dynamic or len(shape) != 3 or shape[2].is_dynamic:
        raise ConversionFailed("The network does not answer a fixed number of logits a token.")
    return int(shape[2].get_length())


def _verify(path: Path, out: Path, context: int) -> Verification:
    compiled = openvino.Core().compile_model(
        str(out / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    names = {port.any_name for port in compiled.inputs}
    worst = largest = 0.0
    batches = encoder_reference.batches(out / "tokenizer.json", context)
    try:
        evaluator = ReferenceEvaluator(str(path))
        for ids, mask, _ in batches:
            tensors = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
            given = {name: tensors[name] for name in names}
            (logits,) = evaluator.run(None, given)
            wanted = logits[mask == 1]
            worst = max(worst, float(np.abs(compiled(given)[0][mask == 1] - wanted).max()))
            largest = max(largest, float(np.abs(wanted).max()))
    except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError) as error:
        lines = str(error).splitlines()
        raise ConversionFailed(
            f"The network cannot be run: {lines[0][:200] if lines else error}"
        ) from None
    if not worst <= TOLERANCE * max(1.0, largest):
        raise ConversionFailed(f"OpenVINO's logits differ by {worst:.3g} from ONNX's.")
    return Verification(
        against="onnx.reference of the ONNX file",
        samples=sum(len(ids) for ids, _, _ in batches),
        max_abs_error=worst,
        compared="logits of the tokens of real sentences, padded in batches",
    )

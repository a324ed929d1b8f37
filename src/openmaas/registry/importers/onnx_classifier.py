"""ONNX networks of …ForSequenceClassification, with tokenizer.json and config.json beside them.

Compared with ONNX's own reference evaluator on tokens of real sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import openvino
from onnx.reference import ReferenceEvaluator

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers import classifier_head, encoder_reference, network_check
from openmaas.registry.importers.onnx import checked
from openmaas.registry.importers.sentence_encoder import copy_tokenizer
from openmaas.registry.importers.text_classifier import TOLERANCE
from openmaas.registry.manifest import Description, Port, Verification
from openmaas.registry.recognise import read_json

INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
MAX_CONTEXT = 1 << 17


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: damaged, labels that do not fit, or weights elsewhere than beside it.
        ConversionFailed: other inputs or outputs than a classifier's, or other numbers than
            ONNX gives.
    """
    (path,) = source.glob("*.onnx")
    checked(path)
    copy_tokenizer(source, out)
    config = read_json(source / "config.json")
    say("converting ONNX to OpenVINO IR")
    model = network_check.read_model(path)
    network_check.name_ports(model)
    found = classifier_head.meaning(config, logits(model, "text"))
    openvino.save_model(model, str(out / "openvino_model.xml"), compress_to_fp16=False)
    say("comparing it with ONNX's reference evaluator")
    context = context_tokens(config)
    return Description(
        format="openvino-classifier",
        task="classify",
        architecture="onnx",
        inputs=[Port(port.any_name, "INT64", [-1, -1]) for port in model.inputs],
        outputs=[Port("logits", "FP32", [-1, len(found.labels)])],
        precision="f32",
        context_tokens=context,
        labels=found.labels,
        multi_label=found.multi_label,
        pairs=found.pairs,
        verification=verify(path, out, context, pairs=found.pairs),
        converted_by={"openvino": openvino.__version__, "onnx": onnx.__version__},
    )


def logits(model: openvino.Model, of: Literal["text", "token"]) -> int:
    """How many logits it answers for each.

    Raises:
        ConversionFailed: it takes or answers something else.
    """
    last = 1 if of == "text" else 2  # the dimension that they are
    names = {port.any_name for port in model.inputs}
    if not {"input_ids", "attention_mask"} <= names <= INPUTS:
        raise ConversionFailed(f"The network takes {', '.join(sorted(names))}, not just tokens.")
    shape = model.outputs[0].get_partial_shape() if len(model.outputs) == 1 else None
    if shape is None or shape.rank.is_dynamic or len(shape) != last + 1 or shape[last].is_dynamic:
        raise ConversionFailed(f"The network does not answer a fixed number of logits a {of}.")
    return int(shape[last].get_length())


def context_tokens(config: Any) -> int:
    places = config.get("max_position_embeddings")
    if type(places) is not int or not 8 <= places <= MAX_CONTEXT:
        raise ArtifactRefused("config.json: max_position_embeddings must be a number.")
    if "roberta" in str(config.get("model_type")):  # it counts from the padding id + 1
        padding = config.get("pad_token_id", 1)
        places -= padding + 1 if type(padding) is int and 0 <= padding < places else 2
    return places


def verify(
    path: Path, out: Path, context: int, *, pairs: bool = False, tokens: bool = False
) -> Verification:
    """Compares logits of texts, or of their tokens without the padding, with ONNX's.

    Raises:
        ConversionFailed: it cannot be run, or they differ.
    """
    compiled = openvino.Core().compile_model(
        str(out / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    names = {port.any_name for port in compiled.inputs}
    worst = largest = 0.0
    batches = encoder_reference.batches(out / "tokenizer.json", context, pairs=pairs)
    try:
        evaluator = ReferenceEvaluator(str(path))
        for ids, mask, types in batches:
            tensors = {
                "input_ids": ids,
                "attention_mask": mask,
                "token_type_ids": types if pairs else np.zeros_like(ids),
            }
            given = {name: tensors[name] for name in names}
            counted: Any = mask == 1 if tokens else ...
            (answer,) = evaluator.run(None, given)
            wanted = answer[counted]
            worst = max(worst, float(np.abs(compiled(given)[0][counted] - wanted).max()))
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
        compared=f"logits of {'the tokens of ' if tokens else ''}real "
        f"{'pairs of ' if pairs else ''}sentences, padded in batches",
    )

"""The tokenizer object that OpenVINO GenAI needs for constrained decoding: a vocabulary alone.

GenAI reads the bytes of every token from the ``VocabDecoder`` of a detokenizer graph.
Text is encoded and decoded elsewhere, so a graph of that one operation is enough; it is built
from ``tokenizer.json`` for models that bring no tokenizer graph of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import openvino as ov
import openvino_genai as genai
from openvino import op, opset15
from openvino_tokenizers.tokenizer_pipeline import FuseStep, VocabDecoderStep
from openvino_tokenizers.utils import change_inputs_type


def grammar_tokenizer(vocabulary: Sequence[bytes]) -> Any:
    """
    Args:
        vocabulary: the bytes of each token, by id.
    """
    ids = op.Parameter(ov.Type.i32, ov.PartialShape(["?", "?"]))
    outputs = VocabDecoderStep(list(vocabulary), [0], True).get_ov_subgraph(ids.outputs())
    outputs = FuseStep().get_ov_subgraph(outputs)
    text = opset15.string_tensor_pack(*outputs)
    text.output(0).tensor.add_names({"string_output"})
    graph = ov.Model(text.outputs(), [ids], "detokenizer")
    change_inputs_type(graph, ov.Type.i64)
    with tempfile.TemporaryDirectory() as folder:
        ov.serialize(graph, f"{folder}/openvino_detokenizer.xml")
        return genai.Tokenizer(folder)

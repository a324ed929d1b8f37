"""The bare engine: OpenVINO on the encoder's own artifact, batches sorted by length.

Usage: ``bare_embedding.py FOLDER SENTENCES PRECISION``; prints one JSON line. Tokenizing is
counted. The best of several batch sizes is what counts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from tokenizers import Tokenizer

BATCHES = (8, 16, 32, 64)


def main(folder: Path, sentences: list[str], precision: str) -> None:
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    if precision != "default":
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = ov.Core().compile_model(folder / "openvino_model.xml", "CPU", settings)
    request = compiled.create_infer_request()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    best = 0.0
    for batch in BATCHES:
        embed(request, tokenizer, sentences[: 4 * batch], batch)  # warm
        began = time.perf_counter()
        embed(request, tokenizer, sentences, batch)
        best = max(best, len(sentences) / (time.perf_counter() - began))
    print(json.dumps({"per_second": best}))


def embed(request: Any, tokenizer: Tokenizer, sentences: list[str], batch: int) -> list[Any]:
    """One vector a sentence, in the order of length."""
    texts = [one.ids for one in tokenizer.encode_batch(sentences)]
    texts.sort(key=len)
    names = [next(iter(port.get_names())) for port in request.model_inputs]
    vectors = []
    for at in range(0, len(texts), batch):
        cut = texts[at : at + batch]
        arrays = {name: np.zeros((len(cut), len(cut[-1])), np.int64) for name in names}
        for row, ids in enumerate(cut):
            arrays["input_ids"][row, : len(ids)] = ids
            arrays["attention_mask"][row, : len(ids)] = 1
        vectors.append(request.infer(arrays, share_inputs=True)[0])
    return vectors


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), sys.argv[3])

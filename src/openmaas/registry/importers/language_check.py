"""Whether a converted language model still says what the original said."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from openmaas.errors import ConversionFailed
from openmaas.registry.manifest import Verification

# Of a token's log-probability, in nats: what eight-bit weights may cost. A 135M model's moved
# by 0.03 on average and 0.15 at worst; an untrained one's, by several times as much.
MEAN_TOLERANCE, TOLERANCE = 0.3, 2.0
MAX_TOKENS = 48  # of each prompt: long enough for positions and attention to matter

PROMPTS = (
    "The capital of France is Paris, and the capital of Germany is Berlin.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fib",
    "Once upon a time, in a small village by the sea, there lived an old fisherman.",
)

# Texts on which tokenizers go apart: spaces, digits, case, scripts, emoji, accents, control.
TEXTS = (
    *PROMPTS,
    "Hello  world   12345  3.14159 1,000,000",
    "\tif (x == 0) {\r\n\t\treturn -1;\n\n\n\t}  \n  trailing ",
    "It's he'll WE'RE they'd I'M don't DON'T 'quoted'",
    "Ünïcödé naïve café Straße ångström ğüşiöç",
    "Съешь же ещё этих мягких французских булок",
    "我能吞下玻璃而不伤身体。 今日は良い天気ですね。 안녕하세요 세계",
    "مرحبا بالعالم — שלום עולם — नमस्ते दुनिया",
    "🙂👩‍👩‍👧‍👦🇩🇪 ½ ² ₃ Ⅷ ٣٤٥ ™ … “quotes” – dash",
    "a_b-c+d=e/f\\g|h&i@j#k$l%m^n*o(p)q[r]s{t}u~v`w",
    "https://example.org/a?b=c&d=%20e#f",
    "x" * 40 + " " * 20 + "y",
)


def encode(tokenizer: Path) -> list[list[int]]:
    """Token ids of the fixed prompts."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(tokenizer))
    texts = [reader.encode(text, add_special_tokens=False).ids[:MAX_TOKENS] for text in PROMPTS]
    if min(map(len, texts)) < 2:
        raise ConversionFailed("Its tokenizer makes no tokens of plain English.")
    return texts


def compare_tokenizers(tokenizer: Path, other: Any) -> None:
    """Encodes every text with ``tokenizer.json`` and with another tokenizer of OpenVINO GenAI.

    Raises:
        ConversionFailed: they disagree.
    """
    from tokenizers import Tokenizer

    ours = Tokenizer.from_file(str(tokenizer))
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False).ids
        theirs = np.array(other.encode(text, add_special_tokens=False).input_ids.data)[0].tolist()
        if ids != theirs:
            raise ConversionFailed(f"Two readings of its tokenizer split {text!r} differently.")
        composed = unicodedata.normalize("NFC", text) == text
        if composed and ours.decode(ids, skip_special_tokens=False) != text:
            raise ConversionFailed(f"Its tokenizer does not give {text!r} back.")


def scores(model: Path, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Log-probability of every token but the first of each text, given those before it.

    Args:
        model: the ``.xml`` of a stateful decoder, computed as exactly as the engine can.
    """
    exact = {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",  # 8 bits otherwise …
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # … and so are activations
    }
    try:
        request = openvino.Core().compile_model(str(model), "CPU", exact).create_infer_request()
        return [_score(request, text) for text in texts]
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ConversionFailed(f"OpenVINO cannot run it: {lines[-1][:300]}") from None


def compare(
    expected: Sequence[Sequence[float]], got: Sequence[Sequence[float]], against: str
) -> Verification:
    """
    Raises:
        ConversionFailed: log-probabilities beyond the tolerances.
    """
    differences = np.abs(
        np.concatenate([np.subtract(a, b) for a, b in zip(expected, got, strict=True)])
    )
    mean, worst = float(differences.mean()), float(differences.max())
    if not (mean <= MEAN_TOLERANCE and worst <= TOLERANCE):
        raise ConversionFailed(
            f"The converted model's log-probabilities differ by {worst:.3g} (on average "
            f"{mean:.3g}) from {against}."
        )
    return Verification(
        against=against,
        samples=len(differences),
        max_abs_error=worst,
        compared=f"log-probabilities of the tokens of fixed texts, in nats (mean {mean:.2g})",
    )


def _score(request: Any, text: Sequence[int]) -> list[float]:
    ids = np.array([text], dtype=np.int64)
    everything = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
    request.reset_state()
    names = [port.any_name for port in request.model_inputs]
    if not set(names) <= set(everything):
        raise ConversionFailed(f"It is no plain decoder: its inputs are {', '.join(names)[:200]}.")
    logits = request.infer({name: everything[name] for name in names})[0][0].astype(np.float64)
    if logits.shape[0] != len(text) or max(text) >= logits.shape[1]:
        raise ConversionFailed("It does not give one row of logits a token, as wide as needed.")
    top = logits.max(1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    found: list[float] = logs[np.arange(len(text) - 1), list(text)[1:]].tolist()
    return found

"""Whether a converted language model still says what the original said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openmaas.errors import ConversionFailed
from openmaas.registry.manifest import Verification

NEW_TOKENS = 12
TOLERANCE = 0.02  # of a token's log-probability, in nats

PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return",
    "Once upon a time, in a small village by the sea,",
    "1 + 1 = 2\n2 + 2 = 4\n3 + 3 =",
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
    return [reader.encode(text, add_special_tokens=False).ids for text in PROMPTS]


def compare_tokenizers(tokenizer: Path, model: Path) -> None:
    """Encodes every text with ``tokenizer.json`` and with OpenVINO GenAI's own tokenizer.

    Raises:
        ConversionFailed: they disagree.
    """
    import numpy as np
    import openvino_genai
    from tokenizers import Tokenizer

    ours, theirs = Tokenizer.from_file(str(tokenizer)), openvino_genai.Tokenizer(str(model))
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False).ids
        other = np.array(theirs.encode(text, add_special_tokens=False).input_ids.data)[0].tolist()
        if ids != other:
            raise ConversionFailed(f"Two readings of its tokenizer split {text!r} differently.")
        if ours.decode(ids, skip_special_tokens=False) != text and not _normalised(text):
            raise ConversionFailed(f"Its tokenizer does not give {text!r} back.")


def answers(
    model: Path, prompts: Sequence[Sequence[int]], **options: Any
) -> list[tuple[list[int], list[float]]]:
    """Greedy tokens after each prompt, and the log-probability of every token but the first.

    Args:
        model: a GGUF, or a folder with IR.
    """
    import numpy as np
    import openvino
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 1  # GiB
    scheduler.enable_prefix_caching = False
    options["INFERENCE_PRECISION_HINT"] = "f32"
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(model), scheduler, "CPU", options)
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = NEW_TOKENS
    config.do_sample, config.ignore_eos, config.echo, config.logprobs = False, True, True, 1
    results = []
    for at, prompt in enumerate(prompts):
        tensor = openvino.Tensor(np.array([prompt], dtype=np.int64))
        handle = pipeline.add_request(at, tensor, config)
        ids: list[int] = []
        scores: list[float] = []
        while pipeline.has_non_finished_requests():
            pipeline.step()
            while handle.can_read():
                for piece in handle.read().values():
                    ids += piece.generated_ids
                    scores += piece.generated_log_probs
        results.append((ids, scores[1:]))  # the first token of a prompt has no context
    return results


def compare(
    expected: Sequence[tuple[list[int], list[float]]],
    got: Sequence[tuple[list[int], list[float]]],
    against: str,
) -> Verification:
    """
    Raises:
        ConversionFailed: other greedy tokens, or log-probabilities beyond the tolerance.
    """
    worst = 0.0
    for (ids, scores), (other_ids, other_scores) in zip(expected, got, strict=True):
        if ids != other_ids or len(scores) != len(other_scores) or not scores:
            raise ConversionFailed(f"The converted model chooses other tokens than {against}.")
        worst = max(worst, *(abs(a - b) for a, b in zip(scores, other_scores, strict=True)))
    if not worst <= TOLERANCE:
        raise ConversionFailed(
            f"The converted model's log-probabilities differ by {worst:.3g} from {against}."
        )
    return Verification(
        against=against,
        samples=len(expected),
        max_abs_error=worst,
        compared=f"log-probabilities of prompt and {NEW_TOKENS} greedy tokens (the same tokens)",
    )


def _normalised(text: str) -> bool:
    import unicodedata

    return unicodedata.normalize("NFC", text) != text

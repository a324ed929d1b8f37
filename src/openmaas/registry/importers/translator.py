"""Marian, M2M100, NLLB and T5 folders → CTranslate2's form, straight from their safetensors.

No framework takes part: CTranslate2's specification is filled from the tensors, and what its
engine computes is compared with a second, independent forward pass in NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers import translator_languages as languages
from openmaas.registry.importers import (
    translator_reference,
    translator_shapes,
    translator_spec,
    translator_tokens,
    translator_weights,
)
from openmaas.registry.importers.translator_weights import Translator
from openmaas.registry.manifest import Description, Verification

# Of a token's natural log-probability: float32 must be exact but for the order of sums; eight-bit
# weights may cost what they cost language models here.
EXACT, MEAN_TOLERANCE, TOLERANCE = 1e-3, 0.3, 2.0
SAMPLES, LONGEST = 8, 24  # sentences of random tokens, and the tokens of the longest


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: settings, weights or the tokenizer are damaged or missing.
        ConversionFailed: a variant that is not built here, or the result computes other numbers.
    """
    model = translator_weights.read(source)
    translator_shapes.check(model)
    tokens = translator_tokens.take(source, out, model)
    spoken = languages.read(source, model.family, tokens)
    if max(spoken.tokens(), default=0) >= len(model.encoder.words):
        raise ArtifactRefused("The tokens of its languages are beyond the model's words.")
    layout = {
        "end": model.end,
        "special": sorted({model.end, model.start, *tokens.special, *spoken.tokens()}),
        "source_tokens": spoken.source_tokens,
        "target_tokens": spoken.target_tokens,
        "target_in_source": spoken.target_in_source,
        "prompts": spoken.prompts,
    }
    (out / "translator.json").write_text(json.dumps(layout, ensure_ascii=False), encoding="utf-8")
    say(f"writing a {model.family} translator in CTranslate2's form")
    translator_spec.save(model, out, None)
    say("comparing its probabilities with a forward pass in NumPy")
    worst, _ = _compare(model, out)
    if not worst <= EXACT:
        raise ConversionFailed(f"Its log-probabilities differ by {worst:.3g} from the original's.")
    say("turning its weights into eight bits")
    translator_spec.save(model, out, "int8")
    worst, mean = _compare(model, out)
    precision = "int8"
    if not (worst <= TOLERANCE and mean <= MEAN_TOLERANCE):
        say(f"eight bits move log-probabilities by {mean:.2g} on average; keeping float32")
        translator_spec.save(model, out, None)
        worst, mean = _compare(model, out)
        precision = "float32"
    import ctranslate2

    return Description(
        format="ctranslate2",
        task="translate",
        architecture=model.family,
        context_tokens=model.context_tokens,
        source_languages=spoken.sources,
        target_languages=spoken.targets,
        verification=Verification(
            against="a forward pass of the same weights in NumPy, float32",
            samples=SAMPLES,
            max_abs_error=worst,
            compared=(
                f"log-probabilities that {precision} weights give the tokens of the model's own "
                f"translations (mean difference {mean:.2g}); in float32 they are the original's"
            ),
        ),
        converted_by={"ctranslate2": ctranslate2.__version__},
    )


def _compare(model: Translator, folder: Path) -> tuple[float, float]:
    """Largest and mean difference over all tokens of all samples, each model's own answer."""
    import ctranslate2

    engine = ctranslate2.Translator(str(folder), "cpu", intra_threads=2)
    sources = _sources(model)
    texts = [[str(token) for token in one] for one in sources]
    longest = min(LONGEST, model.context_tokens - 1)
    answers: Any = engine.translate_batch(texts, beam_size=1, max_decoding_length=longest)
    targets = [answer.hypotheses[0] for answer in answers]
    differences = []
    for source, target, scored in zip(
        sources, targets, engine.score_batch(texts, targets), strict=True
    ):
        ids = [int(token) for token in target]
        table = translator_reference.logprobs(model, source, ids)
        wanted = table[np.arange(len(ids) + 1), [*ids, model.end]]
        differences.append(np.abs(wanted - np.array(scored.log_probs)))
    together = np.concatenate(differences)
    return float(together.max()), float(together.mean())


def _sources(model: Translator) -> list[list[int]]:
    random = np.random.default_rng(0)
    longest = min(LONGEST, model.context_tokens - 1)
    lengths = random.integers(1, longest, SAMPLES, endpoint=True)
    return [
        [*random.integers(0, len(model.encoder.words), int(length)).tolist(), model.end]
        for length in lengths
    ]

"""OpenVINO GenAI's own objects: a pipeline from an artifact, settings of a sequence, its news."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import openvino_genai as genai

from openmaas.errors import ConfigurationError, UnsupportedParameter
from openmaas.inference import Sampling
from openmaas.runtimes.base import SampledToken, Step
from openmaas.runtimes.openvino_cpu import flag_option, precision_option, threads_option
from openmaas.runtimes.openvino_grammar import grammar_tokenizer
from openmaas.runtimes.vocabulary import Vocabulary

MAX_SEQUENCES = 64  # that run at once; others wait in the engine
MAX_BATCHED_TOKENS = 2048  # of one step
LOOKUP_TOKENS = 3  # guessed a step with prompt_lookup …
LOOKUP_NGRAM = 3  # … after a match of so many
_STATUS = genai.py_openvino_genai.GenerationStatus
_REASONS = {
    genai.GenerationFinishReason.STOP: "stop",
    genai.GenerationFinishReason.LENGTH: "length",
}


def config_of(sampling: Sampling, max_tokens: int, eos: set[int], vocabulary: int) -> Any:
    """The engine's settings of one sequence.

    Raises:
        UnsupportedParameter: it cannot do what is asked.
    """
    if sampling.logit_bias:
        raise UnsupportedParameter("logit_bias is not supported here", param="logit_bias")
    if (sampling.logprobs or 0) > 1:
        raise UnsupportedParameter("alternatives are not known here", param="top_logprobs")
    config = genai.GenerationConfig()
    config.max_new_tokens = max_tokens
    config.eos_token_id = min(eos)
    config.stop_token_ids = eos
    config.ignore_eos = sampling.ignore_eos
    config.presence_penalty = sampling.presence_penalty
    config.frequency_penalty = sampling.frequency_penalty
    config.logprobs = 0 if sampling.logprobs is None else 1
    config.do_sample = sampling.temperature > 0
    if config.do_sample:
        config.temperature = sampling.temperature
        config.top_p = sampling.top_p
        if sampling.top_k is not None:
            config.top_k = min(sampling.top_k, vocabulary)
        # Without one the engine draws the same for every request.
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        config.rng_seed = seed % (1 << 63)
    if sampling.json_schema is not None:
        config.structured_output_config = genai.StructuredOutputConfig(
            json_schema=sampling.json_schema
        )
    return config


def read(id: int, handle: Any) -> Step:
    """What a sequence has got since the last step; one read gives one step's worth."""
    tokens: list[SampledToken] = []
    finish: str | None = None
    while handle.can_read():
        for output in handle.read().values():
            for token, logprob in zip(
                output.generated_ids, output.generated_log_probs, strict=True
            ):
                # 1.0 is what the engine says of a prompt's first token, which has no context.
                tokens.append(SampledToken(token, logprob if logprob <= 0 else None))
            finish = _REASONS.get(output.finish_reason)
    if finish is None and handle.get_status() == _STATUS.IGNORED:
        return Step(id=id, tokens=[], finish="its KV cache does not fit", failed=True)
    return Step(id=id, tokens=tokens, finish=finish)


def guessable(sampling: Sampling) -> bool:
    plain = sampling.json_schema is None and sampling.logprobs is None and sampling.seed is None
    penalties = sampling.presence_penalty or sampling.frequency_penalty
    return sampling.temperature == 0 and plain and not penalties


def guess(config: Any) -> None:
    config.num_assistant_tokens = LOOKUP_TOKENS
    config.max_ngram_size = LOOKUP_NGRAM


def lookup_option(options: dict[str, Any]) -> bool | str:
    value = options.get("prompt_lookup", "alone")
    if value != "alone" and type(value) is not bool:
        raise ConfigurationError('option prompt_lookup: true, false or "alone"')
    return "alone" if value == "alone" else bool(value)


def weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def settings_of(options: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """Of the processor, whatever runs on it."""
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision_option(options, manifest) or "f32",
        "ENABLE_CPU_PINNING": flag_option(options, "pin_threads", False),
    }
    threads = threads_option(options)
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


def open_pipeline(
    folder: Path,
    options: dict[str, Any],
    manifest: dict[str, Any],
    vocabulary: Vocabulary,
    *,
    lookup: bool,
) -> Any:
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = _gib(options)
    scheduler.enable_prefix_caching = flag_option(options, "prefix_cache", False)
    scheduler.max_num_seqs = MAX_SEQUENCES
    scheduler.max_num_batched_tokens = MAX_BATCHED_TOKENS
    settings = settings_of(options, manifest)
    if lookup:
        settings["prompt_lookup"] = True
    gguf = folder / "model.gguf"
    if (folder / "openvino_detokenizer.xml").is_file() or gguf.is_file():
        source = gguf if gguf.is_file() else folder
        return genai.ContinuousBatchingPipeline(source, scheduler, "CPU", settings)
    tokenizer = grammar_tokenizer(vocabulary.raw)
    return genai.ContinuousBatchingPipeline(folder, tokenizer, scheduler, "CPU", **settings)


def _gib(options: dict[str, Any]) -> int:
    value = options.get("kv_cache_gib", 1)
    if type(value) is not int or not 1 <= value <= 1024:
        raise ConfigurationError("option kv_cache_gib: a whole number from 1 to 1024")
    return value

"""Language models in OpenVINO GenAI: continuous batching over a bounded paged KV cache.

What the engine does (2026.4), as measured:

* Sequences are independent: a sequence gives the same tokens beside others as alone, greedy or
  seeded.
* When the KV cache is full it preempts a sequence and computes it again later; a sequence that
  could never fit is refused by ``add``.
* A log-probability is that of the chosen token in the distribution it was drawn from
  (temperature and top_k applied); of greedy and of prompt tokens, the model's own. There are no
  alternatives.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from openmaas.errors import (
    ArtifactRefused,
    ConfigurationError,
    EngineFailed,
    InvalidRequest,
    UnsupportedParameter,
)
from openmaas.inference import ModelInfo, Sampling
from openmaas.runtimes.base import SampledToken, Step
from openmaas.runtimes.openvino_cpu import (
    flag_option,
    known_options,
    precision_option,
    read_manifest,
    threads_option,
)
from openmaas.runtimes.openvino_grammar import grammar_tokenizer
from openmaas.runtimes.vocabulary import Vocabulary

log = logging.getLogger(__name__)

OPTIONS = ("kv_cache_gib", "prefix_cache", "prompt_lookup", "threads", "precision", "pin_threads")
HONOURED = ["seed", "top_k", "penalties", "logprobs", "echo_logprobs", "json_schema", "tools"]
HONOURED += ["ignore_eos"]

MAX_SEQUENCES = 64  # that run at once; others wait in the engine
MAX_BATCHED_TOKENS = 2048  # of one step
LOOKUP_TOKENS = 5  # guessed a step with prompt_lookup …
LOOKUP_NGRAM = 3  # … after a match of so many
ALONE_BYTES = 1 << 30
_BLOCK = 32  # tokens of one block of the KV cache, a constant of the engine on CPUs
_STATUS = genai.py_openvino_genai.GenerationStatus
_REASONS = {
    genai.GenerationFinishReason.STOP: "stop",
    genai.GenerationFinishReason.LENGTH: "length",
}


def open(folder: Path, options: dict[str, Any]) -> OpenVINOGenAI:
    """Loads an artifact of format ``openvino-llm``, or a ``model.gguf`` with ``tokenizer.json``.

    Options: ``kv_cache_gib`` (number, 1), ``prefix_cache`` (false: a cache that requests share
    tells by its timing what others asked), ``prompt_lookup`` ("alone", true or false),
    ``threads``, ``precision`` (f32), ``pin_threads`` (false).

    Prompt lookup guesses the next tokens from what was said already, and the model checks the
    guesses in one step: sooner for one stream, later from eight on, and a matter of the whole
    pipeline. With "alone" there are two: a greedy request without a seed that finds the engine
    idle goes to the one that guesses, all others to the plain one. The second copy of the
    weights is loaded after the first answers, and only of models up to ``ALONE_BYTES``. The
    two may round differently where two tokens are all but equally likely, so whoever needs the
    same text at any load sends a seed.

    Raises:
        ConfigurationError: an option is unknown or out of range.
        ArtifactRefused: the artifact is incomplete.
        RuntimeError: OpenVINO cannot load it.
    """
    known_options(options, OPTIONS)
    return OpenVINOGenAI(folder, options)


class OpenVINOGenAI:
    """A ``TokenRuntime``."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        manifest = read_manifest(folder)
        self._vocabulary = Vocabulary(folder / "tokenizer.json")
        self._special = {str(k): str(v) for k, v in manifest.get("special_tokens", {}).items()}
        self._eos = {id for id in manifest.get("eos_token_ids", ()) if type(id) is int and id >= 0}
        if not self._eos:
            raise ArtifactRefused("the manifest names no token that ends an answer")
        bos = self._vocabulary.id(self._special.get("bos_token", ""))
        self._start = [bos] if manifest.get("add_bos_token") and bos is not None else []
        template = folder / "chat_template.jinja"
        self._template = template.read_text(encoding="utf-8") if template.is_file() else None
        self._lookup = _lookup_option(options)
        self._pipeline = _pipeline(
            folder, options, manifest, self._vocabulary, lookup=self._lookup is True
        )
        self._alone: Any = None  # the pipeline of a greedy sequence that found the engine idle
        self._lone: int | None = None  # which sequence that is
        self._handles: dict[int, Any] = {}
        self._constrained: deque[tuple[int, Any, Any]] = deque()  # not yet in the engine
        self._unproven: int | None = None  # the one whose grammar is compiled next
        self._piece = self._vocabulary.pieces
        self.info = ModelInfo(
            task="chat",
            runtime="openvino_genai",
            options=list(HONOURED),
            context_tokens=int(manifest.get("context_tokens", 0)),
        )
        if self.info.context_tokens < 2:
            raise ArtifactRefused("the manifest gives no context_tokens")
        self._room = self.info.context_tokens  # until known
        self._room = self._probe()
        self._opening = threading.Thread(
            target=self._open_alone, args=(folder, options, manifest), daemon=True
        )
        if self._lookup == "alone" and _weights(folder) <= ALONE_BYTES:
            self._opening.start()

    def encode(self, text: str) -> list[int]:
        return self._vocabulary.encode(text)

    def piece(self, token: int) -> bytes:
        return self._piece[token]

    def start(self) -> list[int]:
        return self._start

    def chat_template(self) -> str | None:
        return self._template

    def special_tokens(self) -> dict[str, str]:
        return self._special

    def add(self, id: int, prompt: list[int], sampling: Sampling, *, echo: bool = False) -> None:
        room = self.info.context_tokens - len(prompt)
        wanted = room if sampling.max_tokens is None else sampling.max_tokens
        if not prompt or min(prompt) < 0 or max(prompt) >= self._vocabulary.size:
            # The engine reads beyond its embedding table for an id that is none.
            raise InvalidRequest(
                f"prompt token ids are from 0 to {self._vocabulary.size - 1}", param="prompt"
            )
        if wanted > room or wanted < (0 if echo else 1):
            raise InvalidRequest(
                f"prompt ({len(prompt)} tokens) and max_tokens ({wanted}) do not fit the model's "
                f"{self.info.context_tokens}",
                param="max_tokens",
            )
        if len(prompt) + wanted > self._room:
            raise InvalidRequest(
                f"prompt ({len(prompt)} tokens) and max_tokens ({wanted}) are more than this "
                f"server's memory for one sequence, {self._room}",
                param="max_tokens",
            )
        config = self._config(sampling, wanted)
        config.echo = echo
        tokens = ov.Tensor(np.array([prompt], dtype=np.int64))
        if self._alone is not None and not echo and not self.busy() and _guessable(sampling):
            _guess(config)
            self._handles[id] = self._alone.add_request(id, tokens, config)
            self._lone = id
        elif sampling.json_schema is None:
            self._handles[id] = self._pipeline.add_request(id, tokens, config)
        else:
            self._constrained.append((id, tokens, config))

    def cancel(self, id: int) -> None:
        handle = self._handles.pop(id, None)
        if id == self._lone:
            self._lone = None
        if handle is not None:
            handle.cancel()
        elif self._constrained:
            self._constrained = deque(item for item in self._constrained if item[0] != id)

    def step(self) -> list[Step]:
        if not self.busy():
            return []
        self._admit_constrained()
        try:
            if self._lone in self._handles:
                self._alone.step()
            if len(self._handles) > (self._lone in self._handles):
                self._pipeline.step()
        except RuntimeError as error:
            return [self._blame(error)]
        steps = [_read(id, handle) for id, handle in self._handles.items() if handle.can_read()]
        for step in steps:
            if step.finish is not None:
                del self._handles[step.id]
                if step.id == self._lone:
                    self._lone = None
            if step.id == self._unproven:
                self._unproven = None
        return steps

    def busy(self) -> bool:
        return bool(self._handles or self._constrained)

    def close(self) -> None:
        if self._opening.is_alive():
            self._opening.join()
        self._constrained.clear()
        for id in list(self._handles):
            self.cancel(id)
        self._pipeline.step()  # which frees what was cancelled
        del self._pipeline, self._alone

    def _admit_constrained(self) -> None:
        """Lets in one sequence with a grammar at a time. The engine compiles the grammar within
        a step, and what fails there fails the step: this way it is known whose it was."""
        if self._unproven not in self._handles:
            self._unproven = None
        if self._unproven is None and self._constrained:
            id, tokens, config = self._constrained.popleft()
            self._handles[id] = self._pipeline.add_request(id, tokens, config)
            self._unproven = id

    def _blame(self, error: RuntimeError) -> Step:
        if self._unproven is None or self._unproven not in self._handles:
            raise EngineFailed("the engine failed in a step") from error
        log.warning("a grammar was refused: %s", str(error)[-500:])
        id = self._unproven
        self.cancel(id)
        return Step(id=id, tokens=[], finish="its JSON schema cannot be compiled", failed=True)

    def _config(self, sampling: Sampling, max_tokens: int) -> Any:
        if sampling.logit_bias:
            raise UnsupportedParameter("logit_bias is not supported here", param="logit_bias")
        if (sampling.logprobs or 0) > 1:
            raise UnsupportedParameter("alternatives are not known here", param="top_logprobs")
        config = genai.GenerationConfig()
        config.max_new_tokens = max_tokens
        config.eos_token_id = min(self._eos)
        config.stop_token_ids = self._eos
        config.ignore_eos = sampling.ignore_eos
        config.presence_penalty = sampling.presence_penalty
        config.frequency_penalty = sampling.frequency_penalty
        config.logprobs = 0 if sampling.logprobs is None else 1
        config.do_sample = sampling.temperature > 0
        if config.do_sample:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            if sampling.top_k is not None:
                config.top_k = min(sampling.top_k, self._vocabulary.size)
            # Without one the engine draws the same for every request.
            seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
            config.rng_seed = seed % (1 << 63)
        if sampling.json_schema is not None:
            config.structured_output_config = genai.StructuredOutputConfig(
                json_schema=sampling.json_schema
            )
        elif self._lookup is True:
            _guess(config)
        return config

    def _open_alone(self, folder: Path, options: dict[str, Any], manifest: dict[str, Any]) -> None:
        try:
            pipeline = _pipeline(folder, options, manifest, self._vocabulary, lookup=True)
            config = self._config(Sampling(temperature=0, ignore_eos=True), 2)
            _guess(config)
            tokens = ov.Tensor(np.array([[min(self._eos)]], dtype=np.int64))
            handle = pipeline.add_request(0, tokens, config)
            while pipeline.has_non_finished_requests():
                pipeline.step()
            handle.read()
        except RuntimeError:
            log.exception("no prompt lookup for single streams: its pipeline cannot be opened")
            return
        self._alone = pipeline

    def _probe(self) -> int:
        """Runs two tokens, which allocates what the first request would wait half a second for.
        Returns the tokens that the KV cache holds."""
        blocks, count = 0, 0
        self.add(0, [min(self._eos)], Sampling(max_tokens=2, temperature=0, ignore_eos=True))
        while self.busy():
            count += sum(len(step.tokens) for step in self.step())
            # One block is in use, so its share tells how many there are.
            blocks = blocks or round(100 / self._pipeline.get_metrics().cache_usage)
        if count != 2:
            raise ArtifactRefused("the model does not answer a probe")
        return blocks * _BLOCK


def _read(id: int, handle: Any) -> Step:
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


def _guessable(sampling: Sampling) -> bool:
    plain = sampling.json_schema is None and sampling.logprobs is None and sampling.seed is None
    penalties = sampling.presence_penalty or sampling.frequency_penalty
    return sampling.temperature == 0 and plain and not penalties


def _guess(config: Any) -> None:
    config.num_assistant_tokens = LOOKUP_TOKENS
    config.max_ngram_size = LOOKUP_NGRAM


def _lookup_option(options: dict[str, Any]) -> bool | str:
    value = options.get("prompt_lookup", "alone")
    if value != "alone" and type(value) is not bool:
        raise ConfigurationError('option prompt_lookup: true, false or "alone"')
    return "alone" if value == "alone" else bool(value)


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _pipeline(
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
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision_option(options, manifest) or "f32",
        "ENABLE_CPU_PINNING": flag_option(options, "pin_threads", False),
    }
    threads = threads_option(options)
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
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

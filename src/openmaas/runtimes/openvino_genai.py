"""Language models in OpenVINO GenAI: continuous batching over a bounded paged KV cache.

What the engine does (2026.4), as measured:

* A sequence alone is computed by another attention kernel than two and more, which round
  differently once it is longer than a block of the KV cache (32 tokens); how many there are
  beyond one makes no difference. Log-probabilities differ by what 8-bit activations make of
  that, up to about 0.2, and so now and then a token. Alone or beside others, the same request
  with the same seed repeats exactly.
* When the KV cache is full it preempts a sequence and computes it again later; a sequence that
  could never fit is refused by ``add``.
* A log-probability is that of the chosen token in the distribution it was drawn from
  (temperature and top_k applied); of greedy and of prompt tokens, the model's own. There are no
  alternatives; answers with those are scored by a network of our own (``openvino_reading``).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from openmaas.errors import ArtifactRefused, EngineFailed, InvalidRequest, UnsupportedParameter
from openmaas.inference import ModelInfo, Sampling
from openmaas.runtimes.base import Step
from openmaas.runtimes.grammar_gate import GrammarGate, Verdict
from openmaas.runtimes.language_artifact import read_artifact, tokens_wanted
from openmaas.runtimes.openvino_cpu import flag_option, known_options
from openmaas.runtimes.openvino_genai_engine import (
    MAX_SEQUENCES,
    config_of,
    guess,
    guessable,
    lookup_option,
    open_pipeline,
    read,
    settings_of,
    weights,
)
from openmaas.runtimes.openvino_reading import LateReader
from openmaas.runtimes.vocabulary import Vocabulary

log = logging.getLogger(__name__)

OPTIONS = ("kv_cache_gib", "prefix_cache", "prompt_lookup", "threads", "precision", "pin_threads")
HONOURED = ["seed", "top_k", "penalties", "logprobs", "echo_logprobs", "json_schema", "tools"]
HONOURED += ["ignore_eos"]

ALONE_BYTES = 1 << 30
_WAIT = 0.02  # seconds that an idle step waits for a verdict: newcomers wait so long
_MOVED = 4  # tokens read again for each one that is left to write, at the most
_BLOCK = 32  # tokens of one block of the KV cache, a constant of the engine on CPUs


def open(folder: Path, options: dict[str, Any]) -> OpenVINOGenAI:
    """Loads an artifact of format ``openvino-llm``, or a ``model.gguf`` with ``tokenizer.json``.

    Options: ``kv_cache_gib`` (number, 1), ``prefix_cache`` (false: a cache that requests share
    tells by its timing what others asked), ``prompt_lookup`` ("alone", true or false),
    ``threads``, ``precision`` (f32), ``pin_threads`` (false).

    Prompt lookup guesses the next tokens from what was said already, and the model checks the
    guesses in one step: sooner for one stream, later from eight on, and a matter of the whole
    pipeline. With "alone" there are two: a greedy request without a seed that finds the engine
    idle goes to the one that guesses, all others to the plain one, and so does the first when
    another joins it: two pipelines would step in turns. The second copy of the weights is
    loaded after the first answers, and only of models up to ``ALONE_BYTES``. The two round
    differently, so whoever needs a request to repeat exactly sends a seed.

    Raises:
        ConfigurationError: an option is unknown or out of range.
        ArtifactRefused: the artifact is incomplete.
        RuntimeError: OpenVINO cannot load it.
    """
    known_options(options, OPTIONS)
    return OpenVINOGenAI(folder, options)


@dataclass
class _Lone:
    """The sequence in the pipeline that guesses; ``tokens`` are its prompt's and its answer's."""

    id: int
    tokens: list[int]
    end: int  # how many of them there may be
    sampling: Sampling


class OpenVINOGenAI:
    """A ``TokenRuntime``."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        artifact = read_artifact(folder)
        manifest = artifact.manifest
        self._vocabulary = Vocabulary(folder / "tokenizer.json")
        self._special = artifact.special_tokens
        self._eos = set(artifact.eos)
        if not self._eos:
            raise ArtifactRefused("the manifest names no token that ends an answer")
        bos = self._vocabulary.id(self._special.get("bos_token", ""))
        self._start = [bos] if manifest.get("add_bos_token") and bos is not None else []
        self._template = artifact.template
        self._lookup = lookup_option(options)
        self._pipeline = open_pipeline(
            folder, options, manifest, self._vocabulary, lookup=self._lookup is True
        )
        remembers = flag_option(options, "prefix_cache", False)
        self._reader: LateReader | None = None
        if (folder / "openvino_model.xml").is_file() and weights(folder) <= ALONE_BYTES:
            self._reader = LateReader(folder, settings_of(options, manifest))
        self._alone: Any = None  # the pipeline of a greedy sequence that found the engine idle
        self._lone: _Lone | None = None
        self._handles: dict[int, Any] = {}
        self._gate = GrammarGate(folder)
        self._waiting: dict[int, tuple[Verdict, Any, Any]] = {}  # for a verdict on their schema
        self._piece = self._vocabulary.pieces
        self.info = ModelInfo(
            task="chat",
            runtime="openvino_genai",
            room=MAX_SEQUENCES,
            options=_honoured(remembers, self._reader is not None),
            context_tokens=artifact.context_tokens,
            sampling=artifact.sampling,
        )
        if self.info.context_tokens < 2:
            raise ArtifactRefused("the manifest gives no context_tokens")
        self._room = self.info.context_tokens  # until known
        self._room = self._probe()
        self._opening = threading.Thread(
            target=self._open_alone, args=(folder, options, manifest), daemon=True
        )
        if self._lookup == "alone" and weights(folder) <= ALONE_BYTES:
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
        wanted = tokens_wanted(
            prompt,
            sampling,
            vocabulary=self._vocabulary.size,
            context=self.info.context_tokens,
            least=0 if echo else 1,
        )
        if len(prompt) + wanted > self._room:
            raise InvalidRequest(
                f"prompt ({len(prompt)} tokens) and max_tokens ({wanted}) are more than this "
                f"server's memory for one sequence, {self._room}",
                param="max_tokens",
            )
        config = config_of(sampling, wanted, self._eos, self._vocabulary.size)
        config.echo = echo
        tokens = _tensor(prompt)
        if self._lone is not None:
            self._join_others(self._lone)
        if self._lookup is True:  # of that pipeline all or none
            guess(config)
        if sampling.json_schema is not None:
            self._waiting[id] = self._gate.ask(sampling.json_schema), tokens, config
        elif self._alone is not None and not echo and not self.busy() and guessable(sampling):
            guess(config)
            self._handles[id] = self._alone.add_request(id, tokens, config)
            self._lone = _Lone(id, list(prompt), len(prompt) + wanted, sampling)
        else:
            self._handles[id] = self._pipeline.add_request(id, tokens, config)

    def score(self, id: int, prompt: list[int], start: int, alternatives: int, salt: str) -> None:
        if self._reader is None:
            raise UnsupportedParameter("alternatives are not known here", param="alternatives")
        self._reader.add(id, prompt, start, alternatives, salt)

    def cancel(self, id: int) -> None:
        self._waiting.pop(id, None)
        if self._reader is not None:
            self._reader.cancel(id)
        handle = self._handles.pop(id, None)
        if handle is not None:
            handle.cancel()
        if self._lone is not None and id == self._lone.id:
            self._lone = None
            self._alone.step()  # which frees what was cancelled

    def step(self) -> list[Step]:
        if not self.busy():
            return []
        steps = self._admit_waiting() if self._waiting else []
        try:
            if self._lone is not None:
                self._alone.step()
            if len(self._handles) > (self._lone is not None):
                self._pipeline.step()
        except RuntimeError as error:
            # What it leaves of the other sequences is in disorder: this process has to go.
            raise EngineFailed("the engine failed in a step") from error
        if self._reader is not None and self._reader.busy():
            steps += self._reader.step(wait=0.0 if self._handles or steps else _WAIT)
        steps += [read(id, handle) for id, handle in self._handles.items() if handle.can_read()]
        for step in steps:
            lone = self._lone if self._lone is not None and step.id == self._lone.id else None
            if lone is not None:
                lone.tokens += [token.id for token in step.tokens]
            if step.finish is not None:
                self._handles.pop(step.id, None)
                if lone is not None:
                    self._lone = None
        return steps

    def busy(self) -> bool:
        reading = self._reader is not None and self._reader.busy()
        return reading or bool(self._handles or self._waiting)

    def close(self) -> None:
        if self._opening.is_alive():
            self._opening.join()
        self._waiting.clear()
        if self._reader is not None:
            self._reader.close()
        self._gate.close()
        for id in list(self._handles):
            self.cancel(id)
        self._pipeline.step()  # which frees what was cancelled
        del self._pipeline, self._alone

    def _join_others(self, lone: _Lone) -> None:
        """Moves the sequence that was alone to the plain pipeline, which reads what it has so
        far again; one that is nearly done is left where it is."""
        left = lone.end - len(lone.tokens)
        if len(lone.tokens) > _MOVED * left:
            return
        self.cancel(lone.id)
        config = config_of(lone.sampling, left, self._eos, self._vocabulary.size)
        tokens = _tensor(lone.tokens)
        self._handles[lone.id] = self._pipeline.add_request(lone.id, tokens, config)

    def _admit_waiting(self) -> list[Step]:
        """Lets in the sequences whose schema is known to compile; tells of those it does not."""
        refused: list[Step] = []
        for id, (verdict, tokens, config) in list(self._waiting.items()):
            # With nothing else to do, a step waits for the news.
            if not verdict.known(0.0 if self._handles or refused else _WAIT):
                continue
            del self._waiting[id]
            if verdict.error is None:
                self._handles[id] = self._pipeline.add_request(id, tokens, config)
            else:
                reason = f"its JSON schema {verdict.error}"
                refused.append(Step(id=id, tokens=[], finish=reason, failed=True, invalid=True))
        return refused

    def _open_alone(self, folder: Path, options: dict[str, Any], manifest: dict[str, Any]) -> None:
        try:
            pipeline = open_pipeline(folder, options, manifest, self._vocabulary, lookup=True)
            sampling = Sampling(temperature=0, ignore_eos=True)
            config = config_of(sampling, 2, self._eos, self._vocabulary.size)
            guess(config)
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


def _honoured(remembers: bool, reads: bool) -> list[str]:
    # What the prefix cache holds of a prompt is not computed again, so not scored either.
    options = [one for one in HONOURED if one != "echo_logprobs" or not remembers]
    return [*options, "top_echo_logprobs"] if reads else options


def _tensor(tokens: list[int]) -> ov.Tensor:
    return ov.Tensor(np.array([tokens], dtype=np.int64))

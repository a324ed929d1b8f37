"""Language models in llama.cpp (through xllamacpp): every GGUF that OpenVINO GenAI does not read.

What the engine does (xllamacpp 2026.10), as measured:

* A sequence occupies one of ``parallel`` slots with a context of its own; others wait here.
* What one request left in memory is never looked at for another: prompt cache, slot
  similarity and the RAM cache are off (llama.cpp #27148: one conversation served to another).
* Sequences are independent: the same tokens beside others as alone (flash attention is off,
  as its kernel for CPUs is not).
* A token that ends within a character is not reported by itself, only counted with the token
  that completes the character. Its id is found again from its bytes; its log-probability is
  not known.
* Penalties look at the prompt, too, unlike other engines'.
"""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
from pathlib import Path
from typing import Any

import xllamacpp

from openmaas.errors import ArtifactRefused, ConfigurationError, InvalidRequest
from openmaas.inference import ModelInfo, Sampling
from openmaas.runtimes.base import Step
from openmaas.runtimes.gguf_vocabulary import read_pieces
from openmaas.runtimes.language_artifact import read_artifact, tokens_wanted
from openmaas.runtimes.llamacpp_slots import Slots
from openmaas.runtimes.llamacpp_tokenizer import TokenizerLine

log = logging.getLogger(__name__)

OPTIONS = {  # name → (default, least, most); a default of 0 is the engine's own choice
    "context_tokens": (4096, 16, 1 << 20),  # of one sequence, if the model has so many
    "parallel": (8, 1, 64),  # sequences that run at once
    "threads": (0, 0, 1024),
}
HONOURED = ["seed", "top_k", "penalties", "logit_bias", "logprobs", "top_logprobs"]
HONOURED += ["json_schema", "tools", "ignore_eos"]

MAX_ALTERNATIVES = 20
_BATCH = 256  # tokens of one step of a long prompt, after which a cancellation is looked at
_SEED_BITS = 32
# Of llguidance, llama.cpp's grammar engine: JSON on one line. A small model that is kept from
# what it wants to say would write white space for ever.
_JSON_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Temperature before top_p, as OpenAI and others have it; nothing that was not asked for.
_SAMPLERS = ["penalties", "top_k", "temperature", "top_p"]


def open(folder: Path, options: dict[str, Any]) -> LlamaCpp:
    """Loads an artifact of format ``gguf``. Options: ``OPTIONS``, whole numbers.

    Raises:
        ConfigurationError: an option is unknown or out of range.
        ArtifactRefused: the artifact is incomplete, or llama.cpp cannot load it.
    """
    chosen = {name: default for name, (default, _, _) in OPTIONS.items()}
    for name, value in options.items():
        if name not in OPTIONS:
            raise ConfigurationError(f"no option {name!r} here; there are: {', '.join(OPTIONS)}")
        _, least, most = OPTIONS[name]
        if type(value) is not int or not least <= value <= most:
            raise ConfigurationError(f"option {name}: a whole number from {least} to {most}")
        chosen[name] = value
    return LlamaCpp(folder, chosen)


class LlamaCpp:
    """A ``TokenRuntime``."""

    def __init__(self, folder: Path, options: dict[str, int]) -> None:
        artifact = read_artifact(folder)
        self._pieces = read_pieces(folder / "model.gguf")
        self._special, self._template, eos = (
            artifact.special_tokens,
            artifact.template,
            artifact.eos,
        )
        context = min(artifact.context_tokens, options["context_tokens"])
        if context < 2 or not eos:
            raise ArtifactRefused("the manifest gives no context_tokens or eos_token_ids")
        # A socket in a folder of our own, and a key: nobody else on the machine gets through.
        self._place = tempfile.TemporaryDirectory(prefix="openmaas-")
        socket, key = f"{self._place.name}/s.sock", secrets.token_hex(32)
        server = _server(folder / "model.gguf", options, context, socket, key)
        self._tokenizer = TokenizerLine(socket, key)
        self._slots = Slots(server, options["parallel"], self._pieces, eos[0])
        bos = self.encode(self._special.get("bos_token", ""))
        self._start = bos if artifact.manifest.get("add_bos_token") and len(bos) == 1 else []
        self.info = ModelInfo(
            task="chat",
            runtime="llamacpp",
            room=options["parallel"],
            options=list(HONOURED),
            context_tokens=context,
            sampling=artifact.sampling,
        )
        self._probe(eos[0])

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text) if text else []

    def start(self) -> list[int]:
        return self._start

    def piece(self, token: int) -> bytes:
        return self._pieces[token]

    def chat_template(self) -> str | None:
        return self._template

    def special_tokens(self) -> dict[str, str]:
        return self._special

    def add(self, id: int, prompt: list[int], sampling: Sampling, *, echo: bool = False) -> None:
        wanted = tokens_wanted(
            prompt, sampling, vocabulary=len(self._pieces), context=self.info.context_tokens
        )
        if echo:
            raise InvalidRequest("log-probabilities of a prompt are not known here", param="echo")
        if (sampling.logprobs or 0) > MAX_ALTERNATIVES:
            raise InvalidRequest(
                f"at the most {MAX_ALTERNATIVES} alternatives", param="top_logprobs"
            )
        self._slots.add(id, _body(prompt, sampling, wanted), sampling.logprobs)

    def cancel(self, id: int) -> None:
        self._slots.cancel(id)

    def step(self) -> list[Step]:
        return self._slots.step()

    def busy(self) -> bool:
        return self._slots.busy()

    def close(self) -> None:
        self._slots.close()
        self._tokenizer.close()
        self._place.cleanup()

    def _probe(self, token: int) -> None:
        """The first tokens, which also fault the weights in."""
        self.add(0, [token], Sampling(max_tokens=2, temperature=0, ignore_eos=True))
        while self.busy():
            if any(step.failed for step in self.step()):
                raise ArtifactRefused("the model does not answer a probe")


def _body(prompt: list[int], sampling: Sampling, max_tokens: int) -> dict[str, Any]:
    """The engine's request, made anew from what is allowed; nothing is passed through."""
    seed = secrets.randbits(_SEED_BITS) if sampling.seed is None else sampling.seed
    body: dict[str, Any] = {
        "prompt": prompt,
        "n_predict": max_tokens,
        "stream": True,
        "cache_prompt": False,
        # Ids come with log-probabilities only; counts reveal ids that did not come.
        "n_probs": max(1, sampling.logprobs or 0),
        "timings_per_token": True,
        "return_progress": True,  # so that a cancellation is seen within a long prompt
        "samplers": _SAMPLERS,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or 0,
        "min_p": 0.0,
        # 2³² − 1 would ask for a random one.
        "seed": seed % ((1 << _SEED_BITS) - 1),
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": 1.0,
        "repeat_last_n": len(prompt) + max_tokens,
        "ignore_eos": sampling.ignore_eos,
        "logit_bias": [[token, bias] for token, bias in sampling.logit_bias.items()],
    }
    if sampling.json_schema is not None:
        body["json_schema"] = json.loads(sampling.json_schema) | {"x-guidance": _JSON_FORM}
    return body


def _server(path: Path, options: dict[str, int], context: int, socket: str, key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames, params.api_keys = [socket], [key]
    params.n_parallel = options["parallel"]
    params.n_ctx = context * options["parallel"]
    params.n_batch = params.n_ubatch = _BATCH
    params.fit_params = False  # takes the context as given, or fails
    params.cache_prompt = params.cache_idle_slots = False
    params.cache_ram_mib = params.n_ctx_checkpoints = 0
    params.slot_prompt_similarity = 0.0
    params.ui = params.endpoint_slots = params.warmup = False
    params.verbosity = -1
    # Its kernel for CPUs rounds differently with other sequences beside it; without, a sequence
    # gives the same tokens beside others as alone.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    # Threads that wait by spinning take the time of those that work.
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    if options["threads"]:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ArtifactRefused(f"llama.cpp cannot load it: {str(error)[:200]}") from None

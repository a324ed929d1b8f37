"""Which runtime serves an artifact, and why."""

from __future__ import annotations

from typing import Any

from openmaas.errors import ConfigurationError
from openmaas.registry.manifest import Manifest
from openmaas.runtimes import NAMES
from openmaas.schema import PUBLIC

CHOICES: dict[str, tuple[str, str]] = {
    "openvino-llm": (
        "openvino_genai",
        "OpenVINO GenAI reads its architecture and serves many sequences at once, faster "
        "than llama.cpp on this kind of machine",
    ),
    "gguf": (
        "llamacpp",
        "a GGUF whose architecture OpenVINO GenAI does not read; llama.cpp does",
    ),
    "openvino-encoder": (
        "openvino_embeddings",
        "a sentence encoder: texts in, one vector each out",
    ),
    "openvino-classifier": (
        "openvino_classifier",
        "a classifier of texts: texts in, a score of each label out",
    ),
    "openvino-tagger": (
        "openvino_tagger",
        "a token classifier: texts in, spans such as names out",
    ),
    "ctranslate2": (
        "ctranslate2_translation",
        "an encoder and decoder that translate; CTranslate2 runs them in int8, in batches",
    ),
    "openvino-translator": (
        "openvino_translation",
        "a small translator of one pair of languages, read by OpenVINO in eight bits",
    ),
    "openvino-tabular": (
        "openvino_tabular",
        "a network over a table: a tensor for each column in, numbers and a label out",
    ),
    "openvino-seq2seq": (
        "openvino_seq2seq",
        "an encoder and decoder that were trained here; OpenVINO writes greedily, in batches",
    ),
    "openvino-ir": ("openvino_tensors", "an ordinary network: tensors in, tensors out"),
}


EXPLAINER = "gradients"
"""The runtime that says why an artifact of ``EXPLAINED`` answers as it does."""
EXPLAINED = frozenset({"openvino_classifier", "openvino_tabular", "openvino_tensors"})
EXPLAINER_OPTIONS = ("threads", "truncate")


DEDICATED = "dedicated"
"""Of option ``prefix_cache``: in replicas that serve one tenant."""


def check_shared(tenant: str, options: dict[str, Any]) -> None:
    """
    Raises:
        ConfigurationError: a cache of prompts is wanted where many tenants ask.
    """
    if tenant == PUBLIC and options.get("prefix_cache") is True:
        raise ConfigurationError(
            "option prefix_cache: the workers of a public model answer many tenants, and its "
            "timing would tell each what others asked. Deploy the model for one tenant, or say "
            f'"{DEDICATED}": it is then on in the replicas of tenants that have their own'
        )


def written(runtime: str, options: dict[str, Any]) -> list[str]:
    """Files that a runtime is told to write: the echo runtime's logs, by which tests know what it
    heard and said."""
    logs = (options.get("token_log"), options.get("prompt_log"))
    return [log for log in logs if isinstance(log, str)] if runtime == "echo" else []


def choose(manifest: Manifest, asked: str | None = None) -> tuple[str, str]:
    """The runtime's name and the reason in words.

    Raises:
        ConfigurationError: no such runtime, or one that cannot read this artifact.
    """
    name, reason = CHOICES[manifest.format]
    if asked is None or asked == name:
        return name, reason
    if asked not in NAMES:
        raise ConfigurationError(f"no runtime {asked!r}; there are: {', '.join(NAMES)}")
    if asked == "echo":
        return asked, "asked for: a fake for tests, which ignores the artifact"
    raise ConfigurationError(
        f"runtime {asked!r} cannot serve format {manifest.format!r}; {name!r} can"
    )

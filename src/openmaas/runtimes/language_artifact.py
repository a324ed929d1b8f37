"""What the artifact of every language model says, whichever engine runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmaas.errors import InvalidRequest
from openmaas.inference import OwnSampling, Sampling
from openmaas.runtimes.openvino_cpu import read_manifest


@dataclass(frozen=True)
class LanguageArtifact:
    """``eos``: tokens that end an answer, in the manifest's order; ``template``: Jinja."""

    manifest: dict[str, Any]
    special_tokens: dict[str, str]
    eos: list[int]
    template: str | None
    context_tokens: int
    sampling: OwnSampling


def read_artifact(folder: Path) -> LanguageArtifact:
    """
    Raises:
        ArtifactRefused: its manifest is damaged.
    """
    manifest = read_manifest(folder)
    template = folder / "chat_template.jinja"
    return LanguageArtifact(
        manifest=manifest,
        special_tokens={str(k): str(v) for k, v in manifest.get("special_tokens", {}).items()},
        eos=[id for id in manifest.get("eos_token_ids", ()) if type(id) is int and id >= 0],
        template=template.read_text(encoding="utf-8") if template.is_file() else None,
        context_tokens=int(manifest.get("context_tokens", 0)),
        sampling=_sampling(manifest.get("generation", {})),
    )


def _sampling(generation: dict[str, Any]) -> OwnSampling:
    """The model's own settings, as far as they are within what a caller may ask for."""

    def within(name: str, least: float, most: float) -> float | None:
        value = generation.get(name)
        return value if isinstance(value, int | float) and least <= value <= most else None

    top_k = within("top_k", 1, 1 << 20)
    return OwnSampling(
        temperature=within("temperature", 0, 2),
        top_p=within("top_p", 0.01, 1),
        top_k=None if top_k is None else int(top_k),
    )


def tokens_wanted(
    prompt: list[int], sampling: Sampling, *, vocabulary: int, context: int, least: int = 1
) -> int:
    """How many tokens to write: ``max_tokens``, or what the context leaves.

    Raises:
        InvalidRequest: the prompt is empty or has ids that are none (engines may read beyond
            their embedding table for one), or both together do not fit.
    """
    if not prompt or min(prompt) < 0 or max(prompt) >= vocabulary:
        raise InvalidRequest(f"prompt token ids are from 0 to {vocabulary - 1}", param="prompt")
    room = context - len(prompt)
    wanted = room if sampling.max_tokens is None else sampling.max_tokens
    if not least <= wanted <= room:
        raise InvalidRequest(
            f"prompt ({len(prompt)} tokens) and max_tokens ({wanted}) do not fit the model's "
            f"{context}",
            param="max_tokens",
        )
    return wanted

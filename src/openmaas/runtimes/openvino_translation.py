"""Translation in OpenVINO: two graphs, one that reads sentences and one that writes a word of each.

Greedy, as the small students that run here were trained to be decoded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused
from openmaas.inference import ModelInfo, Translate
from openmaas.runtimes import openvino_cpu as cpu
from openmaas.runtimes import translation_tokens as shared
from openmaas.runtimes.greedy import GreedyTexts, Sentence

OPTIONS = ("threads", "precision")
END = 0  # Marian's id for the end of a sentence
MAX_ANSWER = 512  # tokens


def open(folder: Path, options: dict[str, Any]) -> GreedyTexts:
    """Loads a translator and translates a probe with it.

    Args:
        folder: holds ``encoder.xml``, ``decoder.xml`` (as ``registry/importers/marian_graph.py``
            describes them), ``source.spm``, and a manifest with ``context_tokens`` and languages.
        options: ``threads`` (default: all), ``precision`` (default: what is fastest here).

    Raises:
        ConfigurationError: an unknown option or value.
        ArtifactRefused: the graphs or the vocabulary cannot be used.
    """
    manifest, reads, writes = compiled(folder, options)
    info = ModelInfo(
        task="translate",
        runtime="openvino_translation",
        context_tokens=manifest["context_tokens"],
        source_languages=list(manifest.get("source_languages", [])),
        target_languages=list(manifest.get("target_languages", [])),
    )
    runtime = GreedyTexts(_Student(reads, writes, shared.read_words(folder)), info)
    runtime.run([Translate(inputs=["a probe"])])
    return runtime


def compiled(
    folder: Path, options: dict[str, Any]
) -> tuple[dict[str, Any], ov.CompiledModel, ov.CompiledModel]:
    """The manifest, and the graph that reads and the one that writes.

    Raises:
        ConfigurationError, ArtifactRefused: as ``open``.
    """
    cpu.known_options(options, OPTIONS)
    threads = cpu.threads_option(options)
    manifest = cpu.read_manifest(folder)
    precision = cpu.precision_option(options, manifest)
    context = manifest.get("context_tokens")
    if type(context) is not int or context < 4:
        raise ArtifactRefused("the manifest gives no context_tokens")
    graphs = []
    for name in ("encoder", "decoder"):
        try:
            model = ov.Core().read_model(folder / f"{name}.xml")
            graphs.append(cpu.compile_model(model, threads=threads, precision=precision))
        except RuntimeError as error:
            raise ArtifactRefused(f"OpenVINO cannot read {name}.xml: {error}") from error
    return manifest, graphs[0], graphs[1]


class _Student:
    """A Marian student of one pair of languages."""

    def __init__(
        self, reads: ov.CompiledModel, writes: ov.CompiledModel, words: shared.Words
    ) -> None:
        self._reads = reads.create_infer_request()
        self._writes = writes.create_infer_request()
        self._kept = [port.any_name for port in reads.outputs]  # keys and values
        self._cells = {
            port.any_name: port.get_partial_shape()[1].get_length()
            for port in writes.inputs
            if port.any_name.startswith("cell_")
        }
        self.words = words

    def read(self, text: str) -> list[int]:
        return [one for one in self.words.encode(text) if one != END] + [END]

    def longest(self, source: int) -> int:
        return longest(source)

    def spell(self, answer: list[int]) -> str:
        return self.words.decode([token for token in answer if token != END])

    def close(self) -> None:
        del self._reads, self._writes

    def write(self, sentences: list[Sentence]) -> None:
        mask = np.zeros((len(sentences), max(len(one.source) for one in sentences)), np.int64)
        tokens = np.zeros_like(mask)
        for row, one in enumerate(sentences):
            tokens[row, : len(one.source)] = one.source
            mask[row, : len(one.source)] = 1
        self._reads.infer({"tokens": tokens, "mask": mask})
        state: dict[str, NDArray[Any]] = {"mask": mask}
        state |= {name: self._reads.get_tensor(name).data.copy() for name in self._kept}
        for name, width in self._cells.items():
            state[name] = np.zeros((len(sentences), width), np.float32)
        token: NDArray[Any] = np.zeros(len(sentences), np.int64)
        place = 0
        while sentences:
            state |= {"token": token, "place": np.array([place], np.int64)}
            self._writes.infer(state, share_inputs=True)
            place += 1
            token = self._writes.get_tensor("next").data.astype(np.int64)
            for one, chosen, logprob in zip(
                sentences, token, self._writes.get_tensor("logprob").data, strict=True
            ):
                one.answer.append(int(chosen))
                one.logprob += float(logprob)
            for name in self._cells:
                state[name] = self._writes.get_tensor("new_" + name).data.copy()
            going = [row for row, one in enumerate(sentences) if not one.ended(END)]
            if len(going) < len(sentences):
                sentences = [sentences[row] for row in going]
                token = token[going]
                state = {
                    name: value[going]
                    for name, value in state.items()
                    if name not in ("token", "place")
                }


def longest(source: int) -> int:
    """Tokens of an answer at most, its end included, by those of its source."""
    return min(2 * source + 32, MAX_ANSWER)

"""Translators and summarizers that were trained here, in OpenVINO: one graph reads, one writes the
next token of each text. Greedy, as they were compared with the trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
from msgspec import Struct
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused
from openmaas.inference import ModelInfo, Translate
from openmaas.runtimes import translation_tokens as shared
from openmaas.runtimes.greedy import GreedyTexts, Sentence
from openmaas.runtimes.openvino_translation import compiled

OPTIONS = ("threads", "precision")  # as ``compiled`` reads them
SETTINGS = "seq2seq.json"


class Settings(Struct, frozen=True):
    """Token ids, and how long an answer may be."""

    begin_id: int  # that an answer begins with, unwritten
    end_id: int
    target_length: int  # tokens of an answer at most, its end included


def open(folder: Path, options: dict[str, Any]) -> GreedyTexts:
    """Loads an encoder and decoder and lets them write a probe.

    Args:
        folder: holds ``encoder.xml`` and ``decoder.xml`` (as ``registry/importers/
            seq2seq_graph.py`` describes them), ``source.json`` and ``target.json`` (tokenizers),
            ``seq2seq.json``, and a manifest with ``context_tokens``, task and languages.
        options: ``threads`` (default: all), ``precision`` (default: as it was compared, f32).

    Raises:
        ConfigurationError: an unknown option or value.
        ArtifactRefused: a part is missing, damaged or of another kind.
    """
    manifest, reads, writes = compiled(folder, options)
    try:
        settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=Settings)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactRefused(f"{SETTINGS} cannot be read: {error}") from None
    if manifest.get("task") not in ("translate", "summarize"):
        raise ArtifactRefused("the artifact neither translates nor summarizes")
    info = ModelInfo(
        task=manifest["task"],
        runtime="openvino_seq2seq",
        context_tokens=manifest["context_tokens"],
        source_languages=list(manifest.get("source_languages", [])),
        target_languages=list(manifest.get("target_languages", [])),
    )
    words = shared.Fast(folder / "source.json", special=True), shared.Fast(folder / "target.json")
    runtime = GreedyTexts(_Trained(reads, writes, words, settings), info)
    runtime.run([Translate(inputs=["a probe"])])
    return runtime


class _Trained:
    def __init__(
        self,
        reads: ov.CompiledModel,
        writes: ov.CompiledModel,
        words: tuple[shared.Fast, shared.Fast],
        settings: Settings,
    ) -> None:
        self._reads = reads.create_infer_request()
        self._writes = writes.create_infer_request()
        self._settings = settings
        (source,) = reads.inputs
        self._length = _length(source)  # of padded sources; None: any
        self._states = [f"state_{at}" for at in range(len(reads.outputs) - 1)]
        ports = {port.any_name: port for port in writes.inputs}
        self._takes = set(ports)
        self._room = _length(ports["tokens"]) if "tokens" in ports else 1
        self.words: shared.Words = words[0]
        self._target = words[1]

    def read(self, text: str) -> list[int]:
        return self.words.encode(text) or [0]

    def longest(self, source: int) -> int:
        return self._settings.target_length

    def spell(self, answer: list[int]) -> str:
        return self._target.decode([one for one in answer if one != self._settings.end_id])

    def close(self) -> None:
        del self._reads, self._writes

    def write(self, sentences: list[Sentence]) -> None:
        longest = self._length or max(len(one.source) for one in sentences)
        source = np.zeros((len(sentences), longest), np.int64)
        for row, one in enumerate(sentences):
            source[row, : len(one.source)] = one.source
        self._reads.infer({"source": source})
        given: dict[str, NDArray[Any]] = {"source": source}
        for at, name in enumerate(["memory", *self._states]):
            given[name] = self._reads.get_output_tensor(at).data.copy()
        given = {name: value for name, value in given.items() if name in self._takes}
        while sentences:
            self._writes.infer(given | self._written(sentences), share_inputs=True)
            chosen, logprobs = (self._writes.get_output_tensor(at).data for at in (0, 1))
            for one, token, logprob in zip(sentences, chosen, logprobs, strict=True):
                one.answer.append(int(token))
                one.logprob += float(logprob)
            for at, name in enumerate(self._states, 2):
                given[name] = self._writes.get_output_tensor(at).data.copy()
            going = [
                row for row, one in enumerate(sentences) if not one.ended(self._settings.end_id)
            ]
            if len(going) < len(sentences):
                sentences = [sentences[row] for row in going]
                given = {name: value[going] for name, value in given.items()}

    def _written(self, sentences: list[Sentence]) -> dict[str, NDArray[np.int64]]:
        """What each text has so far, all of them as many tokens."""
        begin, count = self._settings.begin_id, 1 + len(sentences[0].answer)
        if "token" in self._takes:
            last = [one.answer[-1] if one.answer else begin for one in sentences]
            return {"token": np.array(last, np.int64)[:, None]}
        tokens = np.zeros((len(sentences), self._room or count), np.int64)
        tokens[:, 0] = begin
        tokens[:, 1:count] = [one.answer for one in sentences]
        return {"tokens": tokens, "position": np.full((len(sentences), 1), count - 1, np.int64)}


def _length(port: Any) -> int | None:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) != 2:
        raise ArtifactRefused(f"{port.any_name} takes no row of tokens a text")
    return None if shape[1].is_dynamic else int(shape[1].get_length())

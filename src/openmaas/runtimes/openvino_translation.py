"""Translation in OpenVINO: two graphs, one that reads sentences and one that writes a word of each.

Greedy, as the small students that run here were trained to be decoded. Sentences of many requests
are written together; one that has ended leaves the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, InvalidRequest
from openmaas.inference import (
    Answer,
    Failure,
    ModelInfo,
    Request,
    Tokenize,
    Translate,
    Translated,
    Usage,
)
from openmaas.runtimes import openvino_cpu as cpu
from openmaas.runtimes import translation_tokens as shared

OPTIONS = ("threads", "precision")
END = 0  # Marian's id for the end of a sentence
CALL_TOKENS = 4096  # padded source tokens of one call, which bounds memory
CALL_SENTENCES = 64  # beyond so many, a step of all costs as much as two of half
MAX_ANSWER = 512  # tokens


class _Sentence(msgspec.Struct):
    """One sentence on its way."""

    source: list[int]
    longest: int  # tokens of the answer, its end included: what loops without end stops there
    answer: list[int] = []
    logprob: float = 0.0  # of all of the answer's tokens


def open(folder: Path, options: dict[str, Any]) -> OpenVinoTranslation:
    """Loads a translator and translates a probe with it.

    Args:
        folder: holds ``encoder.xml``, ``decoder.xml`` (as ``registry/importers/marian_graph.py``
            describes them), ``source.spm``, and a manifest with ``context_tokens`` and languages.
        options: ``threads`` (default: all), ``precision`` (default: what is fastest here).

    Raises:
        ConfigurationError: an unknown option or value.
        ArtifactRefused: the graphs or the vocabulary cannot be used.
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
    info = ModelInfo(
        task="translate",
        runtime="openvino_translation",
        context_tokens=context,
        source_languages=list(manifest.get("source_languages", [])),
        target_languages=list(manifest.get("target_languages", [])),
    )
    runtime = OpenVinoTranslation(graphs[0], graphs[1], shared.read_words(folder), info)
    runtime.run([Translate(inputs=["a probe"])])
    return runtime


class OpenVinoTranslation:
    """A ``BatchRuntime`` over one translator of one pair of languages."""

    def __init__(
        self,
        reads: ov.CompiledModel,
        writes: ov.CompiledModel,
        words: shared.Words,
        info: ModelInfo,
    ) -> None:
        self._reads = reads.create_infer_request()
        self._writes = writes.create_infer_request()
        self._kept = [port.any_name for port in reads.outputs]  # keys and values
        self._cells = {
            port.any_name: port.get_partial_shape()[1].get_length()
            for port in writes.inputs
            if port.any_name.startswith("cell_")
        }
        self._words = words
        self._sentences = shared.Measured(self._read)
        self.info = info

    def size(self, request: Request) -> int:
        """Tokens of the sources, their ends included.

        Raises:
            InvalidRequest: an input is empty or too long, or the languages are not the model's.
        """
        if isinstance(request, Tokenize):
            return 1  # no engine call
        if not isinstance(request, Translate):
            raise InvalidRequest("this model translates only", param="model")
        return sum(len(source) for source in self._sentences(request))

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """One text an input, with the mean log-probability of its tokens and its end.

        Raises:
            InvalidRequest: as ``size``.
            RuntimeError: what OpenVINO raises.
        """
        asked = [request for request in requests if isinstance(request, Translate)]
        of_each = [
            [_Sentence(source, longest(len(source))) for source in sources]
            for sources in map(self._sentences, asked)
        ]
        for batch in batches([one for several in of_each for one in several]):
            self._translate(batch)
        answers = map(self._answer, asked, of_each)
        return [
            shared.split(self._words, request) if isinstance(request, Tokenize) else next(answers)
            for request in requests
        ]

    def close(self) -> None:
        """Frees the engine."""
        del self._reads, self._writes

    def _answer(self, request: Translate, sentences: list[_Sentence]) -> Answer:
        self._sentences.forget(request)
        return Translated(
            outputs=[
                self._words.decode([token for token in one.answer if token != END])
                for one in sentences
            ],
            logprobs=[one.logprob / len(one.answer) for one in sentences],
            usage=Usage(
                input_tokens=sum(len(one.source) for one in sentences),
                output_tokens=sum(len(one.answer) for one in sentences),
            ),
        )

    def _read(self, request: Translate) -> list[list[int]]:
        shared.language(request.source, self.info.source_languages, "source")
        shared.language(request.target, self.info.target_languages, "target")
        if not request.inputs:
            raise InvalidRequest("there is nothing to translate", param="input")
        context = self.info.context_tokens
        sources = []
        for index, text in enumerate(request.inputs):
            shared.check_text(text, index, context)
            source = [one for one in self._words.encode(text) if one != END] + [END]
            shared.check_length(len(source), index, context)
            sources.append(source)
        return sources

    def _translate(self, sentences: list[_Sentence]) -> None:
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
            going = [
                row
                for row, one in enumerate(sentences)
                if one.answer[-1] != END and len(one.answer) < one.longest
            ]
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


def batches(sentences: list[_Sentence]) -> Iterator[list[_Sentence]]:
    """The sentences of each call, longest first, so that there is little padding."""
    left = sorted(sentences, key=lambda one: -len(one.source))
    while left:
        most = max(1, min(CALL_SENTENCES, CALL_TOKENS // len(left[0].source)))
        yield left[:most]
        left = left[most:]

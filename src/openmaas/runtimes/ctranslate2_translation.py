"""Translation in CTranslate2: sentences of many requests and languages in one engine call.

Sources: Klein et al. 2020 (CTranslate2); Fan et al. 2020 and NLLB Team 2022 for the tokens that
name languages; Junczys-Dowmunt et al. 2018 (Marian); Raffel et al. 2020 (T5).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from openmaas.errors import ArtifactRefused, ConfigurationError, InvalidRequest
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
from openmaas.runtimes.measured import Measured

# CTranslate2 looks for PyTorch to convert its models, whose import costs seconds and memory.
_absent = "torch" not in sys.modules
if _absent:
    sys.modules["torch"] = None  # type: ignore[assignment]
import ctranslate2  # noqa: E402

if _absent:
    del sys.modules["torch"]

OPTIONS = ("threads", "beam_size")
MAX_BEAMS = 16
# CTranslate2's own default, where Marian and M2M100 come with 4 to 6. Measured with weights of an
# OPUS model's size (six layers a side, width 512, 58,101 words, int8), two threads, sentences and
# answers of 25 tokens, in sentences a second: one alone 3.8 greedy, 2.9 with two beams, 2.6 with
# four; 64 at once 46.6, 24.7 and 20.7. What beams are worth in quality depends on the model:
# those that were taught to be greedy want ``beam_size=1``, which is up to twice as fast.
BEAMS = 2
# Padded tokens of one of the engine's own batches, into which it cuts a call by length.
BATCH_TOKENS = 2048
# Tokens of an answer at most, by those of its source: what loops without end stops there. Few
# classes, as each is an engine call, and fixed ones, so that an answer is the same whatever else
# is in its batch.
LENGTHS = ((32, 96), (128, 288), (1 << 30, 512))


class Layout(msgspec.Struct, frozen=True):
    """``translator.json``: how the model is told its languages (``registry/importers/
    translator_languages.py`` writes it)."""

    end: int
    special: list[int]
    source_tokens: dict[str, int] = {}
    target_tokens: dict[str, int] = {}
    target_in_source: bool = False
    prompts: dict[str, str] = {}  # "en>de" → what comes before the text


class _Sentence(msgspec.Struct, frozen=True):
    source: list[str]  # token ids in decimal, as the model's vocabulary has them
    prefix: list[str]  # the first tokens of the answer
    longest: int  # tokens of the answer, prefix and end not counted


def open(folder: Path, options: dict[str, Any]) -> Ctranslate2Translation:
    """Loads a translator and translates a probe with it.

    Args:
        folder: holds CTranslate2's ``model.bin``, a tokenizer, ``translator.json``, and a
            manifest with ``context_tokens`` and the languages.
        options: ``threads`` (default: all), ``beam_size`` from 1 (greedy) to 16, default 2.

    Raises:
        ConfigurationError: an unknown option or value.
        ArtifactRefused: the engine cannot load the artifact.
    """
    cpu.known_options(options, OPTIONS)
    beams = options.get("beam_size", BEAMS)
    if type(beams) is not int or not 1 <= beams <= MAX_BEAMS:
        raise ConfigurationError(f"option beam_size: a whole number from 1 to {MAX_BEAMS}")
    threads = cpu.threads_option(options)
    manifest = cpu.read_manifest(folder)
    context = manifest.get("context_tokens")
    if type(context) is not int or context < 4:
        raise ArtifactRefused("the manifest gives no context_tokens")
    try:
        layout = msgspec.json.decode((folder / "translator.json").read_bytes(), type=Layout)
        engine = ctranslate2.Translator(
            str(folder), "cpu", inter_threads=1, intra_threads=threads or 0
        )
    except (OSError, msgspec.DecodeError, RuntimeError, ValueError) as error:
        raise ArtifactRefused(f"CTranslate2 cannot load the model: {str(error)[:300]}") from None
    info = ModelInfo(
        task="translate",
        runtime="ctranslate2_translation",
        context_tokens=context,
        source_languages=list(manifest.get("source_languages", [])),
        target_languages=list(manifest.get("target_languages", [])),
    )
    runtime = Ctranslate2Translation(engine, shared.read_words(folder), layout, info, beams=beams)
    if layout.prompts:
        source, target = next(iter(layout.prompts)).split(">")
        probe = Translate(inputs=["a probe"], source=source, target=target)
    else:
        probe = Translate(
            inputs=["a probe"],
            source=next(iter(info.source_languages), None),
            target=next(iter(info.target_languages), None),
        )
    runtime.run([probe])
    return runtime


class Ctranslate2Translation:
    """A ``BatchRuntime`` over one translator."""

    def __init__(
        self, engine: Any, words: shared.Words, layout: Layout, info: ModelInfo, *, beams: int
    ) -> None:
        self._engine = engine
        self._words = words
        self._layout = layout
        self._special = frozenset(layout.special)
        self._beams = beams
        self._sentences = Measured(self._read)
        self.info = info

    def size(self, request: Request) -> int:
        """Tokens of the sources, those included that name a language or end a sentence.

        Raises:
            InvalidRequest: an input is empty or too long, or the model does not know a language.
        """
        if isinstance(request, Tokenize):
            return 1  # no engine call
        if not isinstance(request, Translate):
            raise InvalidRequest("this model translates only", param="model")
        return sum(len(one.source) for one in self._sentences(request))

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """One text an input, with the mean log-probability of its tokens and its end.

        Raises:
            InvalidRequest: as ``size``.
            RuntimeError: what CTranslate2 raises.
        """
        asked = [request for request in requests if isinstance(request, Translate)]
        of_each = [self._sentences(request) for request in asked]
        translated = self._translate([one for several in of_each for one in several])
        answers = (self._answer(request, translated) for request in asked)
        return [
            shared.split(self._words, request) if isinstance(request, Tokenize) else next(answers)
            for request in requests
        ]

    def close(self) -> None:
        """Frees the engine."""
        del self._engine

    def _answer(self, request: Translate, translated: Iterator[tuple[list[int], float]]) -> Answer:
        sentences = self._sentences(request)
        self._sentences.forget(request)
        found = [next(translated) for _ in sentences]
        return Translated(
            outputs=[
                self._words.decode([one for one in ids if one not in self._special])
                for ids, _ in found
            ],
            logprobs=[logprob for _, logprob in found],
            usage=Usage(
                input_tokens=sum(len(one.source) for one in sentences),
                output_tokens=sum(len(ids) for ids, _ in found),
            ),
        )

    def _read(self, request: Translate) -> list[_Sentence]:
        source = shared.language(request.source, self.info.source_languages, "source")
        target = shared.language(request.target, self.info.target_languages, "target")
        if not request.inputs:
            raise InvalidRequest("there is nothing to translate", param="input")
        prompt = ""
        layout = self._layout
        if layout.prompts:
            pair = f"{source}>{target}"
            if pair not in layout.prompts:
                raise InvalidRequest(
                    f"this model does not translate {source} into {target}", param="target"
                )
            prompt = layout.prompts[pair]
        prefix = [str(layout.target_tokens[target])] if target in layout.target_tokens else []
        before = [str(layout.source_tokens[source])] if source in layout.source_tokens else []
        if layout.target_in_source:
            before, prefix = prefix, []
        return [
            self._sentence(prompt, text, index, before, prefix)
            for index, text in enumerate(request.inputs)
        ]

    def _sentence(
        self, prompt: str, text: str, index: int, before: list[str], prefix: list[str]
    ) -> _Sentence:
        context = self.info.context_tokens
        shared.check_text(text, index, context)
        # Text that reads like a special token would otherwise end its own sentence.
        ids = [one for one in self._words.encode(prompt + text) if one not in self._special]
        tokens = [*before, *map(str, ids), str(self._layout.end)]
        shared.check_length(len(tokens), index, context)
        longest = next(longest for most, longest in LENGTHS if len(tokens) <= most)
        room = context - len(prefix) - 1  # the decoder's positions are as many
        return _Sentence(tokens, prefix, min(longest, room))

    def _translate(self, sentences: list[_Sentence]) -> Iterator[tuple[list[int], float]]:
        found: dict[int, tuple[list[int], float]] = {}
        for longest in sorted({one.longest for one in sentences}):
            places = [at for at, one in enumerate(sentences) if one.longest == longest]
            results = self._call([sentences[at] for at in places], longest)
            found |= dict(zip(places, results, strict=True))
        return iter([found[at] for at in range(len(sentences))])

    def _call(self, sentences: list[_Sentence], longest: int) -> Iterator[tuple[list[int], float]]:
        prefixes = [one.prefix for one in sentences]
        results = self._engine.translate_batch(
            [one.source for one in sentences],
            target_prefix=prefixes if any(prefixes) else None,
            max_batch_size=BATCH_TOKENS,
            batch_type="tokens",
            beam_size=self._beams,
            max_decoding_length=longest + len(prefixes[0]),
            max_input_length=0,
            return_scores=True,
            return_end_token=True,
        )
        for one, result in zip(sentences, results, strict=True):
            tokens = result.hypotheses[0]
            written = tokens[len(one.prefix) :]
            # The engine's mean counts the prefix too, to which it gives no probability.
            mean = result.scores[0] * len(tokens) / max(1, len(written))
            yield [int(token) for token in written], min(0.0, float(mean))

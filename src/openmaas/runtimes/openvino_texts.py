"""What the OpenVINO runtimes that read texts share: tokens, limits, and what one loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from tokenizers import Tokenizer

from openmaas.errors import ArtifactRefused, InvalidRequest, PayloadTooLarge
from openmaas.inference import Request, Tokenize, Tokenized, Usage
from openmaas.runtimes import openvino_cpu as cpu
from openmaas.runtimes.openvino_calls import PaddedCalls, Text

OPTIONS = ("threads", "precision", "truncate")
# A MiniLM that is sent random lengths takes 530 MB with so many kernels, 1.2 GB with all that it
# ever made, and 400 MB with 200, which is a tenth slower.
KERNELS = 1000
# Texts are refused unread beyond this many characters per token of context: the tokenizer's
# time is then bounded, and no text of that length fits.
CHARACTERS_PER_TOKEN = 100
# Requests that were measured and then given up by their callers leave their tokens behind.
REMEMBERED = 4096
TOKENIZER_BYTES = 64 << 20

Input = str | list[int] | tuple[str, str]


class Loaded(NamedTuple):
    """An artifact that reads texts, as its folder and the operator's options describe it."""

    manifest: dict[str, Any]
    compiled: ov.CompiledModel
    tokenizer: Tokenizer
    context: int  # tokens
    truncate: bool


def load(folder: Path, options: dict[str, Any]) -> Loaded:
    """
    Args:
        folder: holds the graph (``input_ids`` and perhaps ``attention_mask`` and
            ``token_type_ids``, each batch × tokens, to one row of numbers a text or token),
            ``tokenizer.json``, and a manifest with ``context_tokens``.
        options: ``threads`` (default: all), ``precision`` (default: f32 if the artifact says
            so, else what is fastest on this CPU: bf16 where it has instructions for it) and
            ``truncate`` (default false: longer inputs are refused, not cut).

    Raises:
        ConfigurationError: an option is unknown or out of range.
        ArtifactRefused: a part is missing, damaged or of another kind.
    """
    cpu.known_options(options, OPTIONS)
    manifest = cpu.read_manifest(folder)
    context = manifest.get("context_tokens")
    if type(context) is not int or context < 1:
        raise ArtifactRefused("the encoder's manifest names no context_tokens")
    precision = cpu.precision_option(options, manifest)
    if precision == "bf16" and "precision" not in options:
        precision = None  # asked for by name, a CPU without its instructions would emulate it
    compiled = cpu.compile_model(
        cpu.read_model(folder),
        threads=cpu.threads_option(options),
        precision=precision,
        kernels=KERNELS,
    )
    return Loaded(
        manifest=manifest,
        compiled=compiled,
        tokenizer=_tokenizer(folder / "tokenizer.json"),
        context=context,
        truncate=cpu.flag_option(options, "truncate", False),
    )


class TextNetwork:
    """One network over texts: reads them, remembers those that were measured, and runs them in
    few padded calls. ``width`` is how many numbers it answers a text."""

    def __init__(self, loaded: Loaded) -> None:
        self._tokenizer = loaded.tokenizer
        self._vocabulary = loaded.tokenizer.get_vocab_size(with_added_tokens=True)
        self._context = loaded.context
        self._truncate = loaded.truncate
        self._calls = PaddedCalls(loaded.compiled, loaded.context)
        self.width = self._calls.width
        # id of a request → the request (so that the id stays its own) and its tokens
        self._measured: dict[int, tuple[Request, list[Text]]] = {}

    def close(self) -> None:
        """Frees the engine."""
        self._calls.close()

    def read(
        self, request: Request, inputs: Sequence[Input], *, truncate: bool = False
    ) -> list[Text]:
        """What a request's inputs are in tokens; kept until ``forget``.

        Args:
            truncate: cut what is too long, as the operator's option does for every request.

        Raises:
            InvalidRequest: an input is empty, too long or names a token that is not in the
                vocabulary.
        """
        known = self._measured.get(id(request))
        if known is not None:
            return known[1]
        truncate = truncate or self._truncate
        texts = [self._text(value, index, truncate) for index, value in enumerate(inputs)]
        while len(self._measured) >= REMEMBERED:
            del self._measured[next(iter(self._measured))]
        self._measured[id(request)] = (request, texts)
        return texts

    def forget(self, request: Request) -> None:
        self._measured.pop(id(request), None)

    def infer(self, texts: list[Text]) -> NDArray[np.float32]:
        """[texts, width], in the order of the texts. A text that several callers ask about at
        the same time, such as a label, is run once.

        Raises:
            RuntimeError: what OpenVINO raises.
        """
        places: dict[tuple[int, ...], int] = {}
        where = [places.setdefault((*text.ids, -text.second), len(places)) for text in texts]
        if len(places) < len(texts):
            first = np.unique(where, return_index=True)[1]
            return self._run([texts[index] for index in first])[where]
        return self._run(texts)

    def _run(self, texts: list[Text]) -> NDArray[np.float32]:
        rows = np.empty((len(texts), self.width), np.float32)
        for batch, found in self._calls.run(texts):
            rows[batch] = found
        return rows

    def split(self, request: Tokenize) -> Tokenized:
        """Tokens of each text; those that the tokenizer adds of itself have no bytes."""
        return split(self._tokenizer, request)

    def _text(self, value: Input, index: int, truncate: bool) -> Text:
        """Tokens of one input. Ids are taken as they come: special tokens are the caller's."""
        if isinstance(value, tuple):
            return self._pair(value, index, truncate)
        if isinstance(value, str):
            ids: list[int] = self._tokenizer.encode(self._bounded(value, index, truncate)).ids
        else:
            ids = value
            if not ids:
                raise InvalidRequest(f"input {index} has no tokens", param="input")
            if min(ids) < 0 or max(ids) >= self._vocabulary:
                raise InvalidRequest(
                    f"input {index}: token ids are from 0 to {self._vocabulary - 1}", param="input"
                )
        if self._fits(len(ids), index, truncate):
            return Text(ids)
        # Encoders end a text with one special token, which a cut must not lose.
        return Text([*ids[: self._context - 1], ids[-1]])

    def _pair(self, pair: tuple[str, str], index: int, truncate: bool) -> Text:
        former, latter = (self._bounded(one, index, truncate) for one in pair)
        encoding = self._tokenizer.encode(former, latter)
        parts = encoding.sequence_ids  # of each token 0 or 1; special ones are of neither
        if not self._fits(len(parts), index, truncate):
            first, second = parts.count(0), parts.count(1)
            room = max(0, self._context - (len(parts) - first - second))
            # The longer text is cut to the shorter's length, then both (transformers'
            # longest_first).
            kept = [min(first, max(room // 2, room - second)), 0]
            kept[1] = min(second, room - kept[0])
        else:
            kept = [len(parts), len(parts)]
        ids, types = [], []
        for number, kind, part in zip(encoding.ids, encoding.type_ids, parts, strict=True):
            if part is not None:
                kept[part] -= 1
            if part is None or kept[part] >= 0:
                ids.append(number)
                types.append(kind)
        return Text(ids, types.index(1) if 1 in types else 0)

    def _bounded(self, text: str, index: int, truncate: bool) -> str:
        longest = self._context * CHARACTERS_PER_TOKEN
        if len(text) > longest and not truncate:
            raise PayloadTooLarge(
                f"input {index} has {len(text)} characters; the model reads "
                f"{self._context} tokens, and texts up to {longest} characters are tried",
                param="input",
            )
        return text[:longest]

    def _fits(self, tokens: int, index: int, truncate: bool) -> bool:
        if tokens <= self._context:
            return True
        if not truncate:
            raise InvalidRequest(
                f"input {index} has {tokens} tokens, the limit is {self._context}",
                param="input",
            )
        return False


def split(tokenizer: Tokenizer, request: Tokenize) -> Tokenized:
    """As ``TextNetwork.split``."""
    encodings = tokenizer.encode_batch(request.inputs)
    outputs = [
        [
            (number, text[start:end].encode())
            for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]
        for text, encoding in zip(request.inputs, encodings, strict=True)
    ]
    return Tokenized(outputs=outputs, usage=Usage(input_tokens=sum(map(len, outputs))))


def _tokenizer(path: Path) -> Tokenizer:
    try:
        if path.stat().st_size > TOKENIZER_BYTES:
            raise ArtifactRefused(f"{path.name} is over {TOKENIZER_BYTES} bytes")
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
    except ArtifactRefused:
        raise
    except Exception as error:  # the library raises plain Exception on what it cannot read
        raise ArtifactRefused(f"{path.name} cannot be read: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer

"""Sentence embeddings in OpenVINO: texts of many requests, sorted by length, few padded calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from tokenizers import Tokenizer

from openmaas.errors import ArtifactRefused, InvalidRequest, PayloadTooLarge
from openmaas.inference import (
    Answer,
    Embed,
    Embedded,
    Failure,
    ModelInfo,
    Request,
    Tokenize,
    Tokenized,
    Usage,
)
from openmaas.runtimes import openvino_cpu as cpu

OPTIONS = ("threads", "precision", "truncate")
# Most padded tokens of one engine call: from 256 on a token costs the same, memory does not.
CALL_TOKENS = 2048
# One more engine call costs as much as so many tokens of padding: 1.5 ms, which is reading all
# weights, against a tenth of a token's 60 µs, as the graphs built here do nothing with padding
# but in attention. Beyond that, padding is dearer than another call.
CALL_COST = 300
# Texts are refused unread beyond this many characters per token of context: the tokenizer's
# time is then bounded, and no text of that length fits.
CHARACTERS_PER_TOKEN = 100
# Requests that were measured and then given up by their callers leave their tokens behind.
REMEMBERED = 4096
TOKENIZER_BYTES = 64 << 20

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


def open(folder: Path, options: dict[str, Any]) -> OpenVinoEmbeddings:
    """Loads an encoder and embeds a probe with it.

    Args:
        folder: holds the graph (``input_ids`` and ``attention_mask``, each batch × tokens,
            and perhaps ``token_type_ids``, to one vector a row), ``tokenizer.json``, and a
            manifest with ``context_tokens``.
        options: ``threads`` (default: all), ``precision`` (default: f32 if the artifact says
            so, else what is fastest on this CPU: bf16 where it has instructions for it, which
            keeps a cosine above 0.9999 to f32) and ``truncate`` (default false: longer inputs
            are refused, not cut).

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
        cpu.read_model(folder), threads=cpu.threads_option(options), precision=precision
    )
    runtime = OpenVinoEmbeddings(
        compiled,
        _tokenizer(folder / "tokenizer.json"),
        context,
        truncate=cpu.flag_option(options, "truncate", False),
    )
    runtime.run([Embed(inputs=["a probe"])])
    return runtime


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


class OpenVinoEmbeddings:
    """A ``BatchRuntime`` over one encoder."""

    def __init__(
        self, compiled: ov.CompiledModel, tokenizer: Tokenizer, context: int, *, truncate: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
        self._context = context
        self._truncate = truncate
        self._inputs = [(_known_name(port), _dtype(port)) for port in compiled.inputs]
        if not {IDS, MASK} <= {name for name, _ in self._inputs}:
            raise ArtifactRefused(f"the encoder does not take {IDS} and {MASK}")
        self._dimensions = _dimensions(compiled)
        self._request = compiled.create_infer_request()
        # id of a request → the request (so that the id stays its own) and its token ids
        self._measured: dict[int, tuple[Embed, list[list[int]]]] = {}
        self.info = ModelInfo(
            task="embed",
            runtime="openvino_embeddings",
            options=["dimensions"],
            context_tokens=context,
            dimensions=self._dimensions,
        )

    def size(self, request: Request) -> int:
        """Tokens of a request, special ones included; they are kept for ``run``.

        Raises:
            InvalidRequest: an input is empty, too long or names a token that is not in the
                vocabulary, or ``dimensions`` is out of range.
        """
        if isinstance(request, Tokenize):
            return 1  # no engine call
        if not isinstance(request, Embed):
            raise InvalidRequest("this model makes embeddings only", param="model")
        return sum(map(len, self._tokens(request)))

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Unit vectors in float32, in the order of the inputs.

        Raises:
            InvalidRequest: as ``size``.
            RuntimeError: what OpenVINO raises.
        """
        embeds = [request for request in requests if isinstance(request, Embed)]
        tokens = [self._tokens(embed) for embed in embeds]
        vectors = self._embed([ids for of_one in tokens for ids in of_one])
        embedded = self._answers(embeds, tokens, vectors)
        return [
            split(self._tokenizer, request) if isinstance(request, Tokenize) else next(embedded)
            for request in requests
        ]

    def _answers(
        self, embeds: list[Embed], tokens: list[list[list[int]]], vectors: NDArray[np.float32]
    ) -> Iterator[Embedded]:
        at = 0
        for embed, of_one in zip(embeds, tokens, strict=True):
            rows = vectors[at : at + len(of_one)]
            at += len(of_one)
            if embed.dimensions is not None:
                rows = _unit(rows[:, : embed.dimensions])
            self._measured.pop(id(embed), None)
            yield Embedded(
                dimensions=rows.shape[1],
                data=rows.astype("<f4").tobytes(),
                usage=Usage(input_tokens=sum(map(len, of_one))),
            )

    def close(self) -> None:
        """Frees the engine."""
        del self._request

    def _tokens(self, embed: Embed) -> list[list[int]]:
        known = self._measured.get(id(embed))
        if known is not None:
            return known[1]
        if not embed.inputs:
            raise InvalidRequest("there is nothing to embed", param="input")
        if embed.dimensions is not None and not 1 <= embed.dimensions <= self._dimensions:
            raise InvalidRequest(
                f"dimensions is from 1 to {self._dimensions}, got {embed.dimensions}",
                param="dimensions",
            )
        tokens = [
            self._read(value, index, embed.truncate) for index, value in enumerate(embed.inputs)
        ]
        while len(self._measured) >= REMEMBERED:
            del self._measured[next(iter(self._measured))]
        self._measured[id(embed)] = (embed, tokens)
        return tokens

    def _read(self, value: str | list[int], index: int, truncate: bool) -> list[int]:
        """Token ids of one input. Ids are taken as they come: special tokens are the caller's."""
        if isinstance(value, str):
            longest = self._context * CHARACTERS_PER_TOKEN
            if len(value) > longest and not truncate:
                raise PayloadTooLarge(
                    f"input {index} has {len(value)} characters; the model reads "
                    f"{self._context} tokens, and texts up to {longest} characters are tried",
                    param="input",
                )
            ids: list[int] = self._tokenizer.encode(value[:longest]).ids
        else:
            ids = value
            if not ids:
                raise InvalidRequest(f"input {index} has no tokens", param="input")
            if min(ids) < 0 or max(ids) >= self._vocabulary:
                raise InvalidRequest(
                    f"input {index}: token ids are from 0 to {self._vocabulary - 1}", param="input"
                )
        if len(ids) <= self._context:
            return ids
        if not truncate:
            raise InvalidRequest(
                f"input {index} has {len(ids)} tokens, the limit is {self._context}",
                param="input",
            )
        # Encoders end a text with one special token, which a cut must not lose.
        return [*ids[: self._context - 1], ids[-1]]

    def _embed(self, texts: list[list[int]]) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self._dimensions), np.float32)
        for batch in batches(texts):
            longest = max(len(texts[index]) for index in batch)
            shape = (len(batch), longest)
            arrays = {name: np.zeros(shape, dtype) for name, dtype in self._inputs}
            for row, index in enumerate(batch):
                ids = texts[index]
                arrays[IDS][row, : len(ids)] = ids
                arrays[MASK][row, : len(ids)] = 1
            self._request.infer(arrays, share_inputs=True, share_outputs=True)
            vectors[batch] = self._request.get_output_tensor(0).data
        return _unit(vectors)


def split(tokenizer: Tokenizer, request: Tokenize) -> Tokenized:
    """Tokens of each text; those that the tokenizer adds of itself have no bytes."""
    encodings = tokenizer.encode_batch(request.inputs)
    outputs = [
        [
            (number, text[start:end].encode())
            for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]
        for text, encoding in zip(request.inputs, encodings, strict=True)
    ]
    return Tokenized(outputs=outputs, usage=Usage(input_tokens=sum(map(len, outputs))))


def batches(texts: list[list[int]]) -> list[list[int]]:
    """Indices of the texts of each engine call, the longest first. The cuts between lengths
    are those of least cost, padded tokens and calls together, by dynamic programming."""
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    lengths = [len(texts[index]) for index in order]
    firsts = [at for at in range(len(order)) if at == 0 or lengths[at] != lengths[at - 1]]
    ends = [*firsts[1:], len(order)] if firsts else []
    costs, cuts = [0], [0]  # of the texts before each end, and where their last call begins
    for end in ends:
        cost, cut = min(
            (cost + CALL_COST + lengths[first] * (end - first), number)
            for number, (cost, first) in enumerate(zip(costs, firsts, strict=False))
        )
        costs.append(cost)
        cuts.append(cut)
    calls: list[list[int]] = []
    number = len(firsts)
    while number:
        first, end = firsts[cuts[number]], ends[number - 1]
        most = max(1, CALL_TOKENS // lengths[first])
        calls += [order[at : min(at + most, end)] for at in range(first, end, most)]
        number = cuts[number]
    return calls[::-1]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))
    return unit


def _known_name(port: Any) -> str:
    for name in (IDS, MASK, TYPES):
        if name in port.get_names():
            return name
    raise ArtifactRefused(f"the encoder takes {sorted(port.get_names())}, which is not known here")


def _dtype(port: Any) -> np.dtype[Any]:
    kinds: dict[str, np.dtype[Any]] = {"i64": np.dtype(np.int64), "i32": np.dtype(np.int32)}
    kind = port.get_element_type().get_type_name()
    if kind not in kinds:
        raise ArtifactRefused(f"the encoder takes tokens as {kind}, not as i64 or i32")
    return kinds[kind]


def _dimensions(compiled: ov.CompiledModel) -> int:
    shape = compiled.outputs[0].get_partial_shape() if len(compiled.outputs) == 1 else None
    if shape is None or shape.rank.is_dynamic or len(shape) != 2 or shape[1].is_dynamic:
        raise ArtifactRefused("the encoder does not answer one vector of a fixed length a text")
    return int(shape[1].get_length())

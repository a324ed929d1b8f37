"""What the OpenVINO runtimes that read texts share: tokens, limits, and few padded calls."""

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

OPTIONS = ("threads", "precision", "truncate")
# Most padded tokens of one engine call: from 256 on a token costs the same, memory does not.
CALL_TOKENS = 2048
# One more engine call costs as much as so many tokens of padding: 1.5 ms, which is reading all
# weights, against a tenth of a token's 60 µs, as the graphs built here do nothing with padding
# but in attention. Beyond that, padding is dearer than another call.
CALL_COST = 300
# Lengths of calls are multiples of this, so that fewer shapes need kernels of their own.
LENGTHS = 16
# A MiniLM that is sent random lengths takes 530 MB with so many kernels, 1.2 GB with all that it
# ever made, and 400 MB with 200, which is a tenth slower.
KERNELS = 1000
# Texts are refused unread beyond this many characters per token of context: the tokenizer's
# time is then bounded, and no text of that length fits.
CHARACTERS_PER_TOKEN = 100
# Requests that were measured and then given up by their callers leave their tokens behind.
REMEMBERED = 4096
TOKENIZER_BYTES = 64 << 20

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


Input = str | list[int] | tuple[str, str]


class Text(NamedTuple):
    """A text, or a pair of texts, in tokens."""

    ids: list[int]
    second: int = 0  # where the second text of a pair begins, for networks with token types


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
            ``token_type_ids``, each batch × tokens, to one row of numbers a text),
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
        self._inputs = [(_known_name(port), _dtype(port)) for port in loaded.compiled.inputs]
        names = {name for name, _ in self._inputs}
        if IDS not in names:
            raise ArtifactRefused(f"the encoder does not take {IDS}")
        # Without a mask padding would be read as text: only texts of one length share a call.
        self._masked = MASK in names
        self.width = _width(loaded.compiled)
        self._request = loaded.compiled.create_infer_request()
        # id of a request → the request (so that the id stays its own) and its tokens
        self._measured: dict[int, tuple[Request, list[Text]]] = {}

    def close(self) -> None:
        """Frees the engine."""
        del self._request

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
        cut = batches if self._masked else batches_of_equals
        for batch in cut([text.ids for text in texts]):
            longest = max(len(texts[index].ids) for index in batch)
            if self._masked:
                longest = min(-(-longest // LENGTHS) * LENGTHS, self._context)
            shape = (len(batch), longest)
            arrays = {name: np.zeros(shape, dtype) for name, dtype in self._inputs}
            for row, index in enumerate(batch):
                ids, second = texts[index]
                arrays[IDS][row, : len(ids)] = ids
                if self._masked:
                    arrays[MASK][row, : len(ids)] = 1
                if second and TYPES in arrays:
                    arrays[TYPES][row, second : len(ids)] = 1
            self._request.infer(arrays, share_inputs=True, share_outputs=True)
            rows[batch] = self._request.get_output_tensor(0).data
        return rows

    def split(self, request: Tokenize) -> Tokenized:
        """Tokens of each text; those that the tokenizer adds of itself have no bytes."""
        encodings = self._tokenizer.encode_batch(request.inputs)
        outputs = [
            [
                (number, text[start:end].encode())
                for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            ]
            for text, encoding in zip(request.inputs, encodings, strict=True)
        ]
        return Tokenized(outputs=outputs, usage=Usage(input_tokens=sum(map(len, outputs))))

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


def batches_of_equals(texts: list[list[int]]) -> list[list[int]]:
    """As ``batches``, but of texts that are as long as one another."""
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(texts):
        by_length.setdefault(len(ids), []).append(index)
    calls = []
    for length, indices in by_length.items():
        most = max(1, CALL_TOKENS // length)
        calls += [indices[at : at + most] for at in range(0, len(indices), most)]
    return calls


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


def _width(compiled: ov.CompiledModel) -> int:
    shape = compiled.outputs[0].get_partial_shape() if len(compiled.outputs) == 1 else None
    if shape is None or shape.rank.is_dynamic or len(shape) != 2 or shape[1].is_dynamic:
        raise ArtifactRefused("the network does not answer one row of a fixed length a text")
    return int(shape[1].get_length())

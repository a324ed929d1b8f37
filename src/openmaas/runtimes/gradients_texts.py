"""Gradients of classifiers of texts: which tokens a label's probability is due to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from openmaas.errors import ArtifactRefused, InvalidRequest, PayloadTooLarge
from openmaas.inference import Attribute, ModelInfo, Score, Scored, Usage
from openmaas.runtimes import openvino_cpu as cpu
from openmaas.runtimes import openvino_texts as texts
from openmaas.runtimes.gradients_asked import Asked, Told, origins_of
from openmaas.runtimes.gradients_graph import Graph
from openmaas.runtimes.gradients_nodes import Array
from openmaas.runtimes.gradients_program import Head, Plans
from openmaas.runtimes.openvino_calls import IDS, LENGTHS, MASK, TYPES
from openmaas.runtimes.openvino_classifier import OpenVinoClassifier
from openmaas.runtimes.openvino_texts import CHARACTERS_PER_TOKEN

PADDING = ("[PAD]", "<pad>", "<PAD>", "<|pad|>", "[UNK]", "<unk>", "<UNK>")
PROBE = "a probe"
# As the gradients' own reading and the served network may differ, of a logit of size 1.
TOLERANCE = 1e-3
OUTPUT = "logits"


class TextGradients:
    """
    Args:
        folder: of an artifact ``openvino-classifier``.

    Raises:
        ArtifactRefused: a part is missing or damaged, or has no gradients here.
    """

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        loaded = texts.load(folder, options | {"precision": "f32"})
        served = OpenVinoClassifier(loaded)
        self._tokenizer = loaded.tokenizer
        self._context = loaded.context
        self._truncate = loaded.truncate
        self._padding = _padding(folder, loaded.tokenizer)
        model = cpu.read_model(folder)
        for port in model.inputs:  # by the names that are looked for
            port.set_names({name for name in port.get_names() if name in (IDS, MASK, TYPES)})
        self._dtypes = {port.any_name: port.get_element_type().to_dtype() for port in model.inputs}
        self._head: Head = (
            "sigmoid" if served.info.multi_label or len(served.info.labels) == 1 else "softmax"
        )
        self._masked = MASK in self._dtypes
        self.plans = self._checked(model, served)
        self.info = ModelInfo(
            task="classify",
            runtime="gradients",
            context_tokens=served.info.context_tokens,
            labels=served.info.labels,
            multi_label=served.info.multi_label,
            pairs=served.info.pairs,
        )
        served.close()

    def read(self, request: Attribute) -> Asked:
        """
        Raises:
            InvalidRequest: the text is missing or too long, or there is no such label.
        """
        if request.text is None or request.inputs or request.baselines:
            raise InvalidRequest("this model reads a text; send one as text", param="text")
        if request.output not in ("", OUTPUT):
            raise InvalidRequest(f"no output {request.output!r}", param="output")
        labels = len(self.info.labels)
        if len(request.index) != 1 or not 0 <= request.index[0] < labels:
            raise InvalidRequest(
                f"index is the place of a label, from 0 to {labels - 1}", param="index"
            )
        if request.baseline not in ("pad", "zero"):
            raise InvalidRequest("baseline is pad or zero", param="baseline")
        if request.baseline == "pad" and self._padding is None:
            raise InvalidRequest(
                "this model's tokenizer has no padding and no unknown token; ask for baseline zero",
                param="baseline",
            )
        ids, offsets, special = self._tokens(request.text)
        given = self._given(ids)
        reading = self.plans.read(given)
        origins = origins_of(self.plans, reading, given)
        free = np.zeros(given[IDS].size, bool)
        free[: len(ids)] = ~special
        return Asked(
            reading=reading,
            origins=origins,
            baseline=[
                self._baseline(values, origin, free, leaf.table, request.baseline)
                for leaf, values, origin in zip(
                    self.plans.graph.leaves, reading.leaves, origins, strict=True
                )
            ],
            output=self._output,
            number=request.index[0],
            told=[Told(IDS, "tokens", [len(ids)])],
            usage=Usage(input_tokens=len(ids)),
            offsets=offsets,
        )

    # --- a text in tokens ------------------------------------------------------------------

    def _tokens(self, text: str) -> tuple[list[int], list[tuple[int, int]], Array]:
        """Ids, characters, and which tokens are special ones, cut where that is wanted."""
        longest = self._context * CHARACTERS_PER_TOKEN
        if len(text) > longest and not self._truncate:
            raise PayloadTooLarge(
                f"the text has {len(text)} characters; the model reads {self._context} tokens, "
                f"and texts up to {longest} characters are tried",
                param="text",
            )
        encoding = self._tokenizer.encode(text[:longest])
        kept = list(range(len(encoding.ids)))
        if not kept:
            raise InvalidRequest("the text has no tokens", param="text")
        if len(kept) > self._context:
            if not self._truncate:
                raise InvalidRequest(
                    f"the text has {len(kept)} tokens, the limit is {self._context}", param="text"
                )
            kept = [*kept[: self._context - 1], kept[-1]]  # as the served network's reader cuts
        special = np.array([bool(encoding.special_tokens_mask[at]) for at in kept])
        offsets = [
            (0, 0) if mark else encoding.offsets[at] for at, mark in zip(kept, special, strict=True)
        ]
        return [encoding.ids[at] for at in kept], offsets, special

    def _given(self, ids: list[int]) -> dict[str, Array]:
        """Inputs of one row, padded to a multiple of ``LENGTHS`` where there is a mask."""
        length = len(ids)
        if self._masked and not self.plans.graph.ragged:
            length = min(-(-length // LENGTHS) * LENGTHS, self._context)
        given = {name: np.zeros((1, length), dtype) for name, dtype in self._dtypes.items()}
        given[IDS][0, : len(ids)] = ids
        if self._masked:
            given[MASK][0, : len(ids)] = 1
        return given

    def _baseline(
        self, values: Array, origin: Array | None, free: Array, table: Array | None, kind: str
    ) -> Array:
        """Each vector of a token that is not special gives way to padding's, or to zeros."""
        assert origin is not None
        assert table is not None
        other = np.zeros(table.shape[1], np.float32)
        if kind == "pad" and self._padding is not None:
            other = table[self._padding]
        changed = (origin >= 0) & free[np.maximum(origin, 0)]
        return np.where(changed[..., None], other, values)

    # --- whether it is the served network ----------------------------------------------------

    def _checked(self, model: Any, served: OpenVinoClassifier) -> Plans:
        """The graph, once it has answered a text as the served network does. Padding is left to it
        where it then still does; else texts are not padded."""
        for padded in (True, False):
            self.plans = Plans(Graph(model, [IDS], padded=padded), self._head)
            (self._output,) = self.plans.graph.outputs
            if self._agrees(served):
                return self.plans
            if not any(node.kind == "NonZero" for node in self.plans.graph.nodes):
                break
        raise ArtifactRefused("gradients do not read this network as it is served")

    def _agrees(self, served: OpenVinoClassifier) -> bool:
        (scored,) = served.run([Score(inputs=[PROBE])])
        assert isinstance(scored, Scored)
        logits = np.frombuffer(scored.data, "<f4").astype(np.float64)
        powers = np.exp(logits - logits.max())
        wanted = powers / powers.sum() if self._head == "softmax" else 1 / (1 + np.exp(-logits))
        given = self._given(self._tokens(PROBE)[0])
        try:
            reading = self.plans.read(given)
            origins_of(self.plans, reading, given)
            found = reading.program(self._output).forward(reading.leaves, reading.data)
        except (TypeError, ValueError, IndexError) as error:
            raise ArtifactRefused(
                f"gradients cannot compute this network: {str(error)[:200]}"
            ) from None
        return bool(np.abs(found[0] - wanted).max() < TOLERANCE)


def _padding(folder: Path, tokenizer: Tokenizer) -> int | None:
    """The id of the padding token, else of the unknown one."""
    told = Tokenizer.from_file(str(folder / "tokenizer.json")).padding
    if told is not None:
        return int(told["pad_id"])
    found = [tokenizer.token_to_id(name) for name in PADDING]
    return next((one for one in found if one is not None), None)

"""What an explanation says: attributions in Vertex AI's shape, and how far they can be trusted.

Shape after Vertex AI's ``explanation.proto``; ``trust`` and ``cost`` are our own.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Unit = Literal[
    "token", "word", "sentence", "document", "message", "feature", "superpixel"
]  # fmt: skip
Method = Literal[
    "saliency", "integrated_gradients", "smoothgrad",  # gradients
    "occlusion", "shapley", "kernel_shap",  # any model
    "leave_one_out", "context_cite", "surprise",  # answers of language models
]  # fmt: skip


class Alternative(Struct, frozen=True):
    """A token that could have been there instead."""

    text: str
    logprob: float


class Piece(Struct, frozen=True, omit_defaults=True):
    """A part of a text, and its share in the answer."""

    text: str
    start: int  # characters, in its message or input; of surprise, in the answer
    end: int
    attribution: float
    low: float | None = None  # a 95 % interval of it, where the method draws samples
    high: float | None = None
    message: int | None = None  # which one of a conversation, from 0
    logprob: float | None = None  # of surprise
    alternatives: list[Alternative] = []


class Feature(Struct, frozen=True, omit_defaults=True):
    """A column of a row, its value and its share in the answer."""

    name: str
    value: Any
    attribution: float
    low: float | None = None
    high: float | None = None


class Attribution(Struct, frozen=True, kw_only=True):
    """The shares in one number that the model answered (Vertex AI's names)."""

    baselineOutputValue: float | None  # noqa: N815  what it answers where nothing is known
    instanceOutputValue: float  # noqa: N815
    # of texts a list of ``Piece``, of columns a list of ``Feature``, of tensors nested lists in the
    # input's shape (by the input's name where there are several)
    featureAttributions: Any  # noqa: N815
    outputIndex: list[int]  # noqa: N815
    outputDisplayName: str  # noqa: N815  the label, or the output's name
    approximationError: float | None  # noqa: N815  None: the method makes no such promise


class Cost(Struct, frozen=True, kw_only=True):
    """What it took, or will take at the most."""

    forward_passes: int  # rows or texts that went through the model
    backward_passes: int = 0
    seconds: float | None = None  # None: it has not run yet


class Trust(Struct, frozen=True, kw_only=True):
    """How far it can be relied on."""

    completeness_error: float | None  # the shares added up, less the outputs' difference
    converged: bool | None  # whether that is within the tolerance; None: nothing to converge to
    interval: float | None = None  # mean half width of the 95 % intervals
    fit: float | None = None  # R² of a surrogate on ablations that it was not fitted to
    notes: list[str] = []  # in words, for people


class Explanation(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["explanation"] = "explanation"
    model: str
    version: str
    task: str
    method: Method
    source: str  # the method's paper
    unit: Unit
    seed: int
    attributions: list[Attribution]
    trust: Trust
    cost: Cost

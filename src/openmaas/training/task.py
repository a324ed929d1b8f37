"""What a trainer is given and what it leaves: the files of a job's folder.

``job.json`` holds a ``Task``. The trainer writes ``checkpoints/``, ``prepared/`` (tokenizer and
the like, so that a resumed run does not make them anew), ``events.jsonl``, and at the end
``export/`` (one of the layouts of ``ExportKind``), ``curve.png`` and ``result.json`` (a
``Result``), or ``error.json`` (a ``Failure``). Its exit status is one of those below.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from openmaas.training.spec import JobSpec

TASK, RESULT, ERROR = "job.json", "result.json", "error.json"
EVENTS, CURVE, EXPORT = "events.jsonl", "curve.png", "export"
CHECKPOINTS, PREPARED = "checkpoints", "prepared"

DONE, FAILED, PAUSED, CANCELLED = 0, 1, 75, 76  # exit statuses; any other: it crashed

ExportKind = Literal["keras", "keras_classifier", "encoder_head", "keras_tabular", "keras_seq2seq"]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the trainer."""

    spec: JobSpec
    dataset: str  # folder of the data set's canonical form
    network: str | None = None  # path of the ``.keras`` file, where the spec names an upload
    encoder: str | None = None  # folder of an ``openvino-encoder`` artifact, for text_encoder
    threads: int = 1


class Confusion(msgspec.Struct, frozen=True):
    """Held-out rows of each true label (row) that were told to be each label (column)."""

    labels: list[str]
    rows: list[list[int]]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job."""

    kind: ExportKind  # of what is in ``export/``
    metrics: dict[str, float | None]  # of the held-out rows; None: not a finite number
    split: Literal["test", "validation", "none"]  # which rows those are
    confusion: Confusion | None = None
    history: list[dict[str, float | None]]  # metrics of each epoch; ``epoch`` and ``seconds`` too
    best_epoch: int | None = None  # whose weights were kept, if not the last one's
    parameters: dict[str, Any]  # of the recipe, defaults filled in
    fit: dict[str, Any]  # as it was used, the recipe's own choices filled in
    weights: int  # trainable numbers
    rows: dict[str, int]  # of each split
    seconds: float  # in the loop, over all runs of the job
    libraries: dict[str, str]  # name → version
    privacy: dict[str, Any] | None = None  # differential_privacy.guarantee.Guarantee


class Failure(msgspec.Struct, frozen=True):
    """Why it cannot go on, in words for the caller."""

    code: str
    message: str

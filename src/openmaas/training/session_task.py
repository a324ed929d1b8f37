"""What a session's process is given: ``session.json`` in the session's folder."""

from __future__ import annotations

import msgspec

from openmaas.training.spec import SessionSpec

AUTO = "auto"  # the checkpoint that the service writes by itself
TASK, CHECKPOINTS, EXPORT, PREPARED = "session.json", "checkpoints", "export", "prepared"


class SessionTask(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything lies that a session is opened from."""

    spec: SessionSpec
    network: str | None = None  # path of the ``.keras`` file, where the spec names an upload
    dataset: str | None = None  # folder of the data set's canonical form
    checkpoint: str | None = None  # to begin at; None: at the beginning
    answer_bytes: int = 64 << 20  # of the tensors of one answer

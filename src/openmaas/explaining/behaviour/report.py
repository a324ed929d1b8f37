"""What is said of a whole model."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from openmaas.explaining.behaviour.calibration import Calibration
from openmaas.explaining.behaviour.confusion import Confusion
from openmaas.explaining.behaviour.importance import Importances
from openmaas.explaining.behaviour.neighbours import Neighbours
from openmaas.explaining.explanation import Cost

Part = Literal["importance", "calibration", "confusion", "neighbours"]
PARTS: tuple[Part, ...] = ("importance", "calibration", "confusion", "neighbours")
OF_LABELS: tuple[Part, ...] = ("calibration", "confusion")


class LeftOut(Struct, frozen=True):
    part: Part
    why: str


class DatasetUsed(Struct, frozen=True):
    id: str
    name: str
    split: str
    target: str
    rows: int  # of the split


class Report(Struct, frozen=True, kw_only=True):
    """All that is said of a model. Parts that were not asked for or not possible are null."""

    id: str
    object: Literal["explanation.model"] = "explanation.model"
    model: str
    version: str
    task: str
    dataset: DatasetUsed
    parts: list[Part]  # that it has, or would have if it was not a dry run
    rows: int  # that the model was asked about
    seed: int
    metrics: dict[str, float]
    importance: Importances | None
    calibration: Calibration | None
    confusion: Confusion | None
    neighbours: Neighbours | None
    left_out: list[LeftOut]
    notes: list[str]  # in words, for people
    cost: Cost

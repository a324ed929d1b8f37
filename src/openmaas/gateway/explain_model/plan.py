"""What an explanation of a whole model takes, and which parts of it are possible."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest
from openmaas.explaining.behaviour.report import OF_LABELS, PARTS, LeftOut, Part
from openmaas.explaining.behaviour.whole import ASKED_ABOUT, is_judged, passes
from openmaas.gateway.explain_model.asking import ROWS, Form
from openmaas.gateway.explain_model.data import SAMPLE_BYTES
from openmaas.gateway.openai_parameters import ModelName
from openmaas.training.data import Split
from openmaas.training.spec import Column

MOST_COLUMNS = 256  # whose importance is computed
MOST_PASSES = 2_000_000
MOST_CALLS = 4000
MOST_BYTES = 256 << 20  # of requests, which a ticket remembers until it ends
NO_LABELS = "the model tells numbers, not labels"


class ExplainModelBody(Struct, forbid_unknown_fields=True, kw_only=True):
    model: ModelName  # also name@alias and name@version
    # id or name, of which the newest is meant; None: what the version was trained on
    dataset: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    target: Column | None = None  # the column that is true; None: as the version was trained
    split: Split = "test"
    parts: Annotated[list[Part], Meta(min_length=1, max_length=4)] | None = None  # None: possible
    rows: Annotated[int, Meta(ge=1, le=10_000)] = 1000  # at the most, drawn by the seed
    repeats: Annotated[int, Meta(ge=1, le=50)] = 5  # of a permuted column
    bins: Literal[10, 15] = 10  # of the reliability diagram
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    # What neighbours are looked for of: a text, a row's values by their columns, or a network's
    # array; None: of the mistakes that the model is the surest of
    input: str | dict[str, Any] | list[Any] | None = None
    k: Annotated[int, Meta(ge=1, le=50)] = 5  # neighbours
    dry_run: bool = False  # what it would cost
    stream: bool = False  # events with how far it is, then the report
    render: Literal["json", "html", "png"] = "json"
    dark: bool = False  # the picture's ground


class Plan(NamedTuple):
    parts: list[Part]
    left_out: list[LeftOut]
    rows: int  # that are judged
    training: int  # rows that neighbours are looked for in
    columns: int  # whose importance is computed
    passes: int  # rows and texts that go through models, at the most

    def without(self, part: Part, why: str) -> Plan:
        """Less a part, if it has it; what it then takes is not counted anew."""
        if part not in self.parts:
            return self
        return self._replace(
            parts=[one for one in self.parts if one != part],
            left_out=[*self.left_out, LeftOut(part, why)],
        )


def check(body: ExplainModelBody) -> None:
    """
    Raises:
        InvalidRequest: fields that contradict one another.
    """
    if body.parts is not None and len(set(body.parts)) < len(body.parts):
        raise InvalidRequest("parts names one twice", param="parts")
    if body.stream and (body.render != "json" or body.dry_run):
        raise InvalidRequest("stream goes with render: json, and not with dry_run", param="stream")
    if body.dry_run and body.render != "json":
        raise InvalidRequest("dry_run goes with render: json", param="render")
    if body.dark and body.render != "png":
        raise InvalidRequest("dark goes with render: png", param="dark")
    if body.input is not None and body.parts is not None and "neighbours" not in body.parts:
        raise InvalidRequest("input goes with the part neighbours", param="input")


def plan(
    body: ExplainModelBody, how: Form, splits: Mapping[str, int], embedding: str | None
) -> Plan:
    """
    Args:
        splits: rows of each.
        embedding: a model that makes vectors of texts; None: none is deployed.

    Raises:
        InvalidRequest: the split has no rows, or it takes more than is allowed.
    """
    given = body.input is not None
    wanted: list[Part] = [one for one in PARTS if body.parts is None or one in body.parts]
    reasons: dict[Part, str] = {}
    columns, reasons_of_columns = _columns(how)
    if reasons_of_columns:
        reasons["importance"] = reasons_of_columns
    if how.classes is False:
        reasons |= dict.fromkeys(OF_LABELS, NO_LABELS)
        if not given:
            reasons["neighbours"] = f"{NO_LABELS}: give an input whose neighbours are looked for"
    if not splits.get("train"):
        reasons["neighbours"] = "the data set has no training rows"
    elif how.reads == "texts" and embedding is None:
        reasons["neighbours"] = (
            "no embedding model is deployed; "
            "`openmaas models pull minilm-l6-v2 --deploy` brings one"
        )
    parts = [one for one in wanted if one not in reasons]
    left_out = [LeftOut(one, reasons[one]) for one in wanted if one in reasons]
    most = max(1, min(body.rows, SAMPLE_BYTES // max(1, how.row_bytes)))
    rows = min(most, splits.get(body.split, 0)) if is_judged(parts, given) else 0
    if rows == 0 and is_judged(parts, given):
        there = ", ".join(f"{name} {count}" for name, count in splits.items())
        raise InvalidRequest(f"the split {body.split} has no rows; there are: {there}",
                             param="split")  # fmt: skip
    training = min(most, splits["train"]) if "neighbours" in parts else 0
    total = passes(parts, rows, columns, body.repeats, given=given)
    if training and how.reads == "texts":
        total += training + (1 if given else ASKED_ABOUT)
    if "importance" in parts:
        _check_size(body, how, rows, columns)
    return Plan(parts, left_out, rows, training, columns, total)


def _columns(how: Form) -> tuple[int, str]:
    """How many there are to permute, or why none."""
    if how.reads == "texts":
        return 0, "a text has no columns; /v1/explain tells which words of one text matter"
    count = len(how.ports)
    if count == 1 and how.reads == "arrays":
        shape = how.ports[0].shape[1:]
        if len(shape) > 1 or -1 in shape:
            sides = "×".join("?" if side < 0 else str(side) for side in shape)
            return 0, f"a row of {sides} has no columns; /v1/explain tells what of one row matters"
        count = math.prod(shape)
    if count > MOST_COLUMNS:
        return 0, f"a row has {count} columns; importance is computed of up to {MOST_COLUMNS}"
    return count, ""


def _check_size(body: ExplainModelBody, how: Form, rows: int, columns: int) -> None:
    """
    Raises:
        InvalidRequest: it would take too long, or too much memory.
    """
    permutations = columns * body.repeats
    calls = permutations * -(-rows // ROWS)
    # Columns that stay as they are are sent as the same bytes; of a matrix all of it is.
    sent = how.row_bytes if len(how.ports) == 1 else how.row_bytes // len(how.ports)
    for what, is_, most in (
        ("forward passes", permutations * rows, MOST_PASSES),
        ("calls", calls, MOST_CALLS),
        ("bytes", permutations * rows * sent, MOST_BYTES),
    ):
        if is_ > most:
            raise InvalidRequest(
                f"{columns} columns, {body.repeats} repeats and {rows} rows take {is_:,} {what}, "
                f"over the limit of {most:,}: ask for fewer rows or repeats",
                param="rows",
            )

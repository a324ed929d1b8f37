"""What /v1/explain is asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from openmaas.explaining.explanation import Method, Unit
from openmaas.gateway.openai_parameters import ModelName
from openmaas.gateway.tasks.classification import Label, Template

MOST_BUDGET = 65_536
Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Side = Annotated[int, Meta(ge=1, le=4096)]
Render = Literal["json", "terminal", "html", "png"]


class How(Struct, forbid_unknown_fields=True, kw_only=True):
    """How an answer is to be explained. ``None`` leaves it to us."""

    task: Literal["classify", "sentiment", "predict", "chat"] | None = None
    # the label or number that is explained: a label, its place, or a place in a larger output
    target: Label | Index | Annotated[list[Index], Meta(min_length=1, max_length=8)] | None = None
    top_k: Annotated[int, Meta(ge=1, le=10)] = 1  # without a target: so many, the likeliest first
    output: Annotated[str, Meta(max_length=256)] | None = None  # of a network with several
    labels: list[Label] | None = None  # as /v1/classify
    multi_label: bool | None = None
    hypothesis_template: Template | None = None
    method: Method | None = None
    unit: Unit | None = None
    # what stands where a part is taken away: of texts words (black box), "pad" or "zero"
    # (gradients); of rows another row
    baseline: Any = None
    budget: Annotated[int, Meta(ge=2, le=MOST_BUDGET)] | None = None  # passes, at the most
    tolerance: Annotated[float, Meta(ge=1e-6, le=1.0)] = 1e-3
    image: tuple[Side, Side] | None = None  # height and width of a picture that lies flat
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0

    @property
    def instead(self) -> msgspec.Raw | None:
        """The baseline, if there is one."""
        return None if self.baseline is None else msgspec.Raw(msgspec.json.encode(self.baseline))


class ExplainBody(How, forbid_unknown_fields=True, kw_only=True):
    model: ModelName | None = None  # None: of texts, the deployed one that classifies best
    input: msgspec.Raw  # a text, a row, or a conversation
    answer: Annotated[str, Meta(min_length=1, max_length=100_000)] | None = None
    alternatives: Annotated[int, Meta(ge=0, le=20)] = 5  # of each token, by surprise
    fixed: Annotated[list[Index], Meta(max_length=1024)] | None = None  # messages that stay whole
    dry_run: bool = False
    stream: bool = False
    render: Render = "json"
    dark: bool = False  # the background of a PNG or a terminal
    width: Annotated[int, Meta(ge=20, le=400)] = 80  # of a terminal, in columns


class InstancesBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """KServe's."""

    instances: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=64)]
    parameters: How = msgspec.field(default_factory=How)

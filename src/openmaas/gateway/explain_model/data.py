"""The data set by which a model is judged: which it is, and rows of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.encryption.memory import Memory
from openmaas.errors import Conflict, InvalidRequest, NotFound
from openmaas.explaining.behaviour.whole import SHOWN, Rows, shortened, shown_numbers
from openmaas.gateway.explain_model.asking import Form
from openmaas.gateway.explain_model.child import confined
from openmaas.training.data import Description, Split
from openmaas.training.datasets import DatasetRecord, Datasets
from openmaas.training.jobs import Jobs
from openmaas.training.publishing import Publisher
from openmaas.training.sampling import Ask, Block, Sample
from openmaas.training.session_records import SessionRecords

PROGRAM = "openmaas.training.sampling"
SAMPLE_BYTES = 16 << 20  # of the rows that are taken at one time
PAGE = 100  # data sets that are looked through for a name at one time
CELL = 40  # characters of a value that stands in a row

Array = NDArray[Any]


class Trained(NamedTuple):
    """What is known of how a version was trained; nothing of one that was not trained here."""

    dataset: str | None = None
    name: str = ""  # of the data set
    target: str | None = None
    inputs: list[str] | None = None
    labels: Sequence[str] = ()


class Sampled(NamedTuple):
    """Rows, and what is true of them."""

    target: str
    rows: Rows
    labels: list[str] | None
    values: NDArray[np.float64]  # [rows, numbers] where there are no labels
    columns: list[str]  # what one input's numbers are called, where they are columns of a table


class Data:
    """What tenants hold."""

    def __init__(
        self,
        datasets: Datasets,
        publisher: Publisher,
        jobs: Jobs,
        sessions: SessionRecords,
        memory: Memory,
    ) -> None:
        self._memory = memory
        self._datasets = datasets
        self._publisher = publisher
        self._jobs = jobs
        self._sessions = sessions

    def trained(self, tenant: str, model: str, version: int) -> Trained:
        """Blocks."""
        try:
            versions = self._publisher.versions(tenant, model)
        except NotFound:
            return Trained()
        card = next((one.card for one in versions if one.version == version), None) or {}
        origin, confused = card.get("dataset") or {}, card.get("confusion") or {}
        kind, _, id = str(card.get("made_by", "")).partition(":")
        spec: Any = None
        try:
            if kind == "job":
                spec = self._jobs.get(id, tenant).spec
            elif kind == "session":
                spec = self._sessions.get(id.partition("@")[0], tenant).spec
        except NotFound:
            spec = None
        return Trained(
            origin.get("id"),
            origin.get("name", ""),
            None if spec is None else spec.target,
            None if spec is None else spec.inputs,
            confused.get("labels", ()),
        )

    def find(self, tenant: str, given: str | None, trained: Trained) -> DatasetRecord:
        """Blocks.

        Args:
            given: an id or a name, of which the newest is meant; None: what it was trained on.

        Raises:
            NotFound: there is none.
            InvalidRequest: nothing says what it was trained on.
            Conflict: it is not ready.
        """
        if given is None and trained.dataset is None:
            raise InvalidRequest(
                "nothing says which data set this model was trained on; name one", param="dataset"
            )
        try:
            found = self._named(tenant, given or trained.dataset or "")
        except NotFound:
            if given is not None:
                raise NotFound(f"no data set {given[:64]!r}", param="dataset") from None
            raise NotFound(
                f"data set {trained.name[:64]!r}, which this model was trained on, is gone; name "
                "another",
                param="dataset",
            ) from None
        if found.state != "ready" or found.description is None:
            raise Conflict(f"data set {found.id} is {found.state}; it has rows when it is ready")
        return found

    def _named(self, tenant: str, given: str) -> DatasetRecord:
        try:
            return self._datasets.get(given, tenant)
        except NotFound:
            after = ""
            while page := self._datasets.list(tenant, after=after, limit=PAGE):
                for one in page:
                    if one.name == given:
                        return one
                after = page[-1].id
            raise

    async def sample(
        self, record: DatasetRecord, how: Form, trained: Trained, split: Split, rows: int, seed: int
    ) -> Sampled:
        """
        Raises:
            InvalidRequest: the rows are not as the model reads them.
        """
        with contextlib.ExitStack() as views:
            view = await asyncio.to_thread(views.enter_context, self._memory.view("samples"))
            folder = view / "dataset"
            await asyncio.to_thread(self._datasets.unseal, record.id, folder, self._memory)
            return await self._sample(folder, how, trained, split, rows, seed)

    async def _sample(
        self, folder: Path, how: Form, trained: Trained, split: Split, rows: int, seed: int
    ) -> Sampled:
        ports = [port.name for port in how.ports]
        ask = Ask(
            folder=str(folder),
            reads=how.reads,
            target=trained.target,
            inputs=ports if how.reads == "columns" else trained.inputs,
            ports=ports,
            classes=how.classes,
            split=split,
            rows=rows,
            seed=seed,
            most_bytes=2 * SAMPLE_BYTES,
        )
        told = await confined(
            PROGRAM,
            msgspec.json.encode(ask),
            readable=[folder],
            most_bytes=ask.most_bytes,
        )
        try:
            return await asyncio.to_thread(_sampled, told, how)
        except (msgspec.DecodeError, ValueError):
            raise InvalidRequest("the data set's reader contradicts itself") from None


def known_columns(trained: Trained, description: Description) -> Trained:
    """Without what another data set than it was trained on has not."""
    names = {one.name for one in description.columns}
    inputs = trained.inputs if trained.inputs and names.issuperset(trained.inputs) else None
    return trained._replace(
        target=trained.target if trained.target in names else None, inputs=inputs
    )


def _sampled(answer: bytes, how: Form) -> Sampled:
    """
    Raises:
        DecodeError: it is no sample.
        InvalidRequest: what the reader says.
        ValueError: its parts do not fit.
    """
    told = msgspec.msgpack.decode(answer, type=Sample)
    if told.error:
        raise InvalidRequest(told.error[:2000], param=told.param)
    count = len(told.rows)
    ports = 1 if how.reads == "texts" else len(how.ports)
    inputs = [_array(block, count) for block in told.blocks]
    values = np.frombuffer(told.values, "<f8").reshape(count, told.width)
    labels = told.labels
    if not count or len(inputs) != ports or (labels is not None and len(labels) != count):
        raise ValueError(told.target)
    for port, array in zip(how.ports, inputs, strict=False):
        if (port.datatype == "BYTES") != (array.dtype == object):
            what = "texts" if port.datatype == "BYTES" else "numbers"
            raise InvalidRequest(f"column {port.name!r} does not hold {what}", param="dataset")
    shown = Shown([block.name for block in told.blocks], inputs, told.blocks[0].columns)
    truths = labels if labels is not None else [shown_numbers(row) for row in values]
    rows = Rows(inputs, told.rows, shown, truths)
    return Sampled(told.target, rows, labels, values, told.blocks[0].columns)


def _array(block: Block, count: int) -> Array:
    if block.texts is not None:
        if len(block.texts) != count:
            raise ValueError(block.name)
        return np.array(block.texts, object)
    return np.frombuffer(block.data, "<f4").reshape(count, *block.shape)


class Shown(Sequence[str]):
    """What people see of each row, made when it is looked at: few are.

    Args:
        columns: what the one input's numbers are called, if they are columns of a table.
    """

    def __init__(self, names: list[str], inputs: list[Array], columns: Sequence[str] = ()) -> None:
        self._names = names
        self._inputs = inputs
        self._columns = columns

    def __len__(self) -> int:
        return len(self._inputs[0])

    def __getitem__(self, at: Any) -> Any:
        values = [array[at] for array in self._inputs]
        if len(values) == 1 and isinstance(values[0], str):
            return shortened(values[0])
        names: Sequence[str] = self._names
        if self._columns:
            names, values = self._columns, list(values[0])
        cells = [
            f"{name}={_cell(value)}"
            for name, value in zip(names[:SHOWN], values[:SHOWN], strict=True)
        ]
        return shortened("; ".join(cells))


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value[:CELL] or "missing"
    flat = np.asarray(value).reshape(-1)
    if len(flat) == 1 and np.isnan(flat[0]):
        return "missing"
    return shown_numbers(flat) + (", …" if len(flat) > 10 else "")

"""Some rows of a data set, as a served model reads them, and what is true of each.

``python -m openmaas.training.sampling`` in a sandbox: the gateway opens no file of a data set
itself. It is told an ``Ask`` as JSON on standard input, and writes a ``Sample`` as msgpack.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from openmaas.errors import InvalidRequest
from openmaas.training.data import Column, Dataset, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Reads = Literal["texts", "columns", "arrays"]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    folder: str  # of a canonical form
    reads: Reads  # one text a row, a value for each column, or arrays for a network
    target: str | None  # None: as training chooses it
    inputs: list[str] | None  # that training was told; of columns, the model's own
    ports: list[str] = []  # of a network, what its inputs are called
    classes: bool | None = None  # what is true is a label; None: if it looks like one
    split: Split
    rows: int  # at the most
    seed: int
    most_bytes: int  # of what is answered


class Block(msgspec.Struct, frozen=True):
    """One column or array of the rows."""

    name: str
    shape: list[int]  # of one row: [] of a column
    data: bytes  # float32, little-endian; NaN: missing
    texts: list[str] | None = None  # in its place, of texts and categories; "": missing
    columns: list[str] = []  # that a row is made of, where it is several columns of a table


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    target: str = ""
    rows: list[int] = []  # numbers in the data set, ascending
    labels: list[str] | None = None  # of each row …
    values: bytes = b""  # … or the numbers that are to be told: float64, [rows, width]
    width: int = 0
    blocks: list[Block] = []
    error: str = ""  # a sentence, in place of all that
    param: str | None = None


def sample(ask: Ask) -> Sample:
    """
    Raises:
        InvalidRequest: the rows are not as the model reads them.
    """
    import numpy as np

    from openmaas.training import targets

    data = Dataset(Path(ask.folder))
    wanted = targets.target(data, ask.target)
    columns = _columns(data, ask, wanted.name)
    rows = data.rows(ask.split)
    if ask.reads == "texts":
        texts = data.texts(columns[0].name)
        rows = np.array([at for at in rows if texts[at].strip()], np.int64)
    if not len(rows):
        raise InvalidRequest(f"the {ask.split} split has no rows that can be read", param="split")
    rows = np.sort(np.random.default_rng(ask.seed).permutation(rows)[: ask.rows])
    blocks = [_block(data, one, rows, ask.reads) for one in columns]
    if ask.reads == "arrays" and data.description.kind == "table" and len(ask.ports) == 1:
        blocks = [_stacked(blocks)]
    classes = targets.is_class(wanted) if ask.classes is None else ask.classes
    labels, values = None, np.empty((len(rows), 0))
    if classes:
        found = targets.classes(data, wanted)
        labels = [found.labels[number] for number in found.numbers[rows]]
    else:
        values = np.asarray(targets.numbers(data, wanted)[rows], np.float64)
        values = values.reshape(len(rows), -1)
    return Sample(
        target=wanted.name, rows=rows.tolist(), labels=labels, blocks=blocks,
        values=values.astype("<f8").tobytes(), width=values.shape[1],
    )  # fmt: skip


def _columns(data: Dataset, ask: Ask, target: str) -> list[Column]:
    from openmaas.training import targets

    if ask.reads == "texts":
        if data.description.kind != "table":
            raise InvalidRequest("the model reads texts; the data set has none", param="dataset")
        return [targets.text_column(data, ask.inputs, target)]
    if ask.reads == "columns":
        return [targets.column(data, name) for name in ask.inputs or []]
    found = targets.inputs(data, ask.inputs, target)
    by_name = {one.name: one for one in found}
    if set(by_name) == set(ask.ports):
        return [by_name[name] for name in ask.ports]
    if len(ask.ports) not in (1, len(found)) or (
        data.description.kind == "arrays" and len(found) != len(ask.ports)
    ):
        raise InvalidRequest(
            f"the model takes {len(ask.ports)} inputs, the data set has {len(found)} columns",
            param="dataset",
        )
    return found


def _block(data: Dataset, column: Column, rows: NDArray[np.int64], reads: Reads) -> Block:
    import numpy as np

    if column.kind in ("text", "category") and reads != "arrays":
        texts = data.texts(column.name)
        return Block(column.name, [], b"", [texts[at] for at in rows])
    if column.kind not in ("number", "array"):
        raise InvalidRequest(f"column {column.name} holds no numbers", param="dataset")
    array = data.array(column.name)
    if array.dtype.kind not in "fiub":
        raise InvalidRequest(f"{column.name} holds no numbers", param="dataset")
    taken: NDArray[Any] = np.asarray(array[rows], "<f4")
    return Block(column.name, list(taken.shape[1:]), taken.tobytes())


def _stacked(blocks: list[Block]) -> Block:
    """Number columns as the one input of a network."""
    import numpy as np

    matrix = np.stack([np.frombuffer(one.data, "<f4") for one in blocks], 1)
    names = [one.name for one in blocks]
    return Block("columns", [len(blocks)], matrix.tobytes(), columns=names)


def main() -> None:
    ask = msgspec.json.decode(sys.stdin.buffer.read(), type=Ask)
    try:
        answer = sample(ask)
    except InvalidRequest as error:
        answer = Sample(error=error.message, param=error.param)
    except MemoryError:
        answer = Sample(error="the rows take more memory than they may: ask for fewer")
    except Exception as error:  # of a data set that is damaged, whatever a library raises
        traceback.print_exc()
        answer = Sample(error=f"the data set cannot be read: {type(error).__name__}")
    told = msgspec.msgpack.encode(answer)
    if len(told) > ask.most_bytes:
        told = msgspec.msgpack.encode(
            Sample(error=f"the rows take more than {ask.most_bytes >> 20} MiB: ask for fewer",
                   param="rows")
        )  # fmt: skip
    sys.stdout.buffer.write(told)


if __name__ == "__main__":
    main()

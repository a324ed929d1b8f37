"""Parquet: columns of numbers, booleans, texts, dates; nothing nested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmaas.errors import InvalidRequest
from openmaas.training.data import Description, Preview
from openmaas.training.formats.bounds import FIELD, ROWS, BadRows, Budget, check_names
from openmaas.training.formats.hiding import Hiding
from openmaas.training.formats.table import Batch, Source, build
from openmaas.training.options import Options

BATCH_CELLS = 200_000
BATCH_BYTES = 64 << 20  # of texts that are unfolded at one time
CHUNK = 1 << 30  # bytes of one column in one row group
FOOTER = 16 << 20


def read(
    path: Path, out: Path, options: Options, hiding: Hiding | None = None
) -> tuple[Description, Preview]:
    """
    Raises:
        InvalidRequest: it is damaged, nested, or built to exhaust its reader.
    """
    _check_footer(path)
    try:
        # Texts stay as their dictionaries until it is known how much they unfold to.
        schema = pq.read_schema(path)
        names = list(schema.names)
        check_names(names)
        kinds = [_kind(field) for field in schema]
        texts = [name for name, one in zip(names, kinds, strict=True) if one == pa.string()]
        file = pq.ParquetFile(path, read_dictionary=texts, buffer_size=1 << 20, pre_buffer=False)
        _check_metadata(file.metadata)
        batches = _batches(file, kinds, Budget(path.stat().st_size))
        source = Source("parquet", names, kinds, batches)
        return build(source, out, options, BadRows(options), hiding)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # of the disk
        raise InvalidRequest(
            f"the Parquet is damaged: {str(error).splitlines()[0][:300]}"
        ) from None


def _check_footer(path: Path) -> None:
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if size < 12:
            raise InvalidRequest("it is no Parquet")
        file.seek(size - 8)
        tail = file.read(8)
    if tail[4:] != b"PAR1" or int.from_bytes(tail[:4], "little") > min(FOOTER, size):
        raise InvalidRequest("it is no Parquet, or a truncated one")


def _check_metadata(metadata: Any) -> None:
    if not 0 <= metadata.num_rows <= ROWS:
        raise InvalidRequest(f"it has over {ROWS} rows")
    for group in range(metadata.num_row_groups):
        of = metadata.row_group(group)
        for column in range(of.num_columns):
            if not 0 <= of.column(column).total_uncompressed_size <= CHUNK:
                raise InvalidRequest(
                    f"a column of row group {group + 1} has over {CHUNK >> 20} MiB; "
                    "write smaller row groups"
                )


def _kind(field: Any) -> Any:
    """What a column is set aside as.

    Raises:
        InvalidRequest: it is nested or of bytes.
    """
    one = field.type
    if pa.types.is_dictionary(one):
        one = one.value_type
    if pa.types.is_boolean(one):
        return pa.bool_()
    if pa.types.is_integer(one):
        return pa.float64() if one == pa.uint64() else pa.int64()
    if pa.types.is_floating(one) or pa.types.is_decimal(one):
        return pa.float64()
    text = (pa.types.is_string(one), pa.types.is_large_string(one), pa.types.is_temporal(one),
            pa.types.is_null(one))  # fmt: skip
    if any(text):
        return pa.string()
    raise InvalidRequest(
        f"column {field.name!r} is of type {one}; numbers, booleans, texts and dates are read"
    )


def _batches(file: Any, kinds: list[Any], budget: Budget) -> Iterator[Batch]:
    rows = max(1, BATCH_CELLS // max(1, len(kinds)))
    line = 0
    for batch in file.iter_batches(batch_size=rows, use_threads=False):
        for part in _parts(batch, budget):
            lines = list(range(line + 1, line + part.num_rows + 1))
            line += part.num_rows
            yield lines, [_plain(one, kind) for one, kind in zip(part.columns, kinds, strict=True)]


def _parts(batch: Any, budget: Budget) -> Iterator[Any]:
    """A batch in parts that fit the memory once their texts are unfolded."""
    size = sum(map(_size, batch.columns)) + batch.num_rows * batch.num_columns
    if size > BATCH_BYTES and batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _parts(batch.slice(0, half), budget)
        yield from _parts(batch.slice(half), budget)
        return
    budget.take(size)
    yield batch


def _size(array: Any) -> int:
    """Bytes of an array once it is unfolded.

    Raises:
        InvalidRequest: one value alone is too long.
    """
    values = array.dictionary if pa.types.is_dictionary(array.type) else array
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return 8 * len(array)
    lengths = pc.fill_null(pc.cast(pc.binary_length(values), pa.int64()), 0)
    if len(lengths) and pc.max(lengths).as_py() > FIELD:
        raise InvalidRequest(f"a text has over {FIELD} bytes")
    if pa.types.is_dictionary(array.type):
        lengths = pc.take(lengths, array.indices)
    return int(pc.sum(lengths).as_py() or 0)


def _plain(array: Any, kind: Any) -> Any:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_temporal(array.type) and kind == pa.string():
        array = pc.cast(array, pa.string())
    array = pc.cast(array, kind)
    if kind == pa.string():  # as of CSV, no text is no value
        array.validate(full=True)
        array = pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
    return array

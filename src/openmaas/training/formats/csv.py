"""CSV as RFC 4180 has it, with commas, semicolons or tabs, a header, in UTF-8."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from openmaas.errors import InvalidRequest
from openmaas.training.data import Description, Preview
from openmaas.training.formats.bounds import FIELD, LINE, BadRows, Budget, check_names
from openmaas.training.formats.columns import NUMBER
from openmaas.training.formats.hiding import Hiding
from openmaas.training.formats.table import Batch, Source, build
from openmaas.training.options import Options

DELIMITERS = (",", ";", "\t")
SAMPLE = 1 << 16  # characters that tell the delimiter
SAMPLE_ROWS = 100
BATCH_CELLS = 200_000
BATCH_CHARACTERS = 8 << 20


def read(
    path: Path, out: Path, options: Options, hiding: Hiding | None = None
) -> tuple[Description, Preview]:
    """
    Raises:
        InvalidRequest: it is no such CSV.
    """
    csv.field_size_limit(FIELD)
    bad, budget = BadRows(options), Budget(path.stat().st_size)
    with _opened(path) as file:
        delimiter = options.delimiter or _sniff(file.read(SAMPLE))
        file.seek(0)
        records = _records(_Lines(file), delimiter)
        names = _header(records)
        source = Source("csv", names, None, _batches(records, len(names), bad, budget))
        return build(source, out, options, bad, hiding)


def _opened(path: Path) -> io.TextIOWrapper:
    file = open(path, "rb")  # noqa: SIM115  the wrapper closes it
    if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
        file.close()
        raise InvalidRequest("it is UTF-16; save it as UTF-8")
    file.seek(0)
    # What is not UTF-8 is told of with its line, which a strict decoder does not know.
    return io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")


class _Lines:
    """Lines as an editor counts them, for the csv module: it asks for as many as a record has."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file
        self.number = 0  # of the last line
        self.why = ""  # what is wrong with the record so far
        self._size = 0

    def begin(self) -> int:
        """Says that a record begins; the number of its first line."""
        self.why, self._size = "", 0
        return self.number + 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LINE + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._size += len(line)
        if self._size > LINE:
            raise InvalidRequest(f"line {self.number}: a row has over {LINE >> 20} MB")
        if "\0" in line:
            self.why = "it has a NUL byte"
        elif not line.isascii() and any("\udc80" <= c <= "\udcff" for c in line):
            self.why = "it is not UTF-8"
        return line


def _records(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """Number of the first line, cells, and what is wrong, if something is."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = lines.begin()
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error) or "field limit" in str(error):
                # Where the next row begins is anybody's guess.
                raise InvalidRequest(
                    f"line {start}: a quote is not closed, or a value has over {FIELD} characters"
                ) from None
            yield start, [], lines.why or str(error)
            continue
        if record:
            yield start, record, lines.why


def _header(records: Iterator[tuple[int, list[str], str]]) -> list[str]:
    for line, names, why in records:
        if why:
            raise InvalidRequest(f"line {line}, which names the columns: {why}")
        check_names(names)
        if all(NUMBER.fullmatch(name) for name in names):
            raise InvalidRequest("the first line is to name the columns; it has numbers")
        return names
    raise InvalidRequest("it is empty")


def _batches(
    records: Iterator[tuple[int, list[str], str]], width: int, bad: BadRows, budget: Budget
) -> Iterator[Batch]:
    lines: list[int] = []
    rows: list[list[str]] = []
    size = 0
    for line, record, why in records:
        if not why and len(record) != width:
            why = f"it has {len(record)} values; the header names {width}"
        if why:
            bad.add(line, why)
            continue
        taken = sum(map(len, record)) + width
        budget.take(taken)
        size += taken
        lines.append(line)
        rows.append(record)
        if len(rows) * width >= BATCH_CELLS or size >= BATCH_CHARACTERS:
            yield lines, _columns(rows)
            lines, rows, size = [], [], 0
    if rows:
        yield lines, _columns(rows)


def _columns(rows: list[list[str]]) -> list[list[str | None]]:
    return [[cell or None for cell in column] for column in zip(*rows, strict=True)]


def _sniff(sample: str) -> str:
    """The delimiter that gives the most rows as many values as the first has."""
    best, found = (0.0, 1), ","
    for delimiter in DELIMITERS:
        lines = sample.splitlines(keepends=True)
        if len(lines) > 1 and len(sample) >= SAMPLE:
            lines.pop()
        widths = []
        reader = csv.reader(lines, delimiter=delimiter)
        try:
            for row in reader:
                widths += [len(row)] if row else []
                if len(widths) == SAMPLE_ROWS:
                    break
        except csv.Error:
            pass
        if widths and widths[0] > 1:
            alike = sum(width == widths[0] for width in widths) / len(widths)
            best, found = max((best, found), ((alike, widths[0]), delimiter))
    return found

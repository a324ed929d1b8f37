"""NPZ as NumPy writes it, read without NumPy's reader: no object of Python is ever made of it.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import ast
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.registry import archives
from openmaas.training.data import Description, Preview
from openmaas.training.formats import splits
from openmaas.training.formats.arrays import ArrayFile, finish
from openmaas.training.formats.bounds import ROWS
from openmaas.training.formats.hiding import Hiding
from openmaas.training.options import Options

HEADER_BYTES = 10_000
DIMENSIONS = 8
ARRAYS = 1000
CHUNK = 4 << 20
IN_MEMORY = 512 << 20  # bytes of an array in Fortran's order, or of texts
TEXT = 1024  # characters of one
RESERVED = {"split"}  # a file of the canonical form
SPLITS = {"_train": 0, "_validation": 1, "_valid": 1, "_val": 1, "_test": 2}  # ends of names
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}$")
_NUMBERS = re.compile(r"^[<>|=]?([iu][1248]|f[248]|b1)$")
_TEXTS = re.compile(r"^[<>|=]?([US])([0-9]{1,6})$")


class Header(NamedTuple):
    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]
    start: int  # of the numbers, in the file


def read(
    path: Path, out: Path, options: Options, hiding: Hiding | None = None
) -> tuple[Description, Preview]:
    """
    Raises:
        InvalidRequest: it holds what is no plain array, or arrays of unlike lengths.
        ArtifactRefused: the archive is damaged, or built to exhaust its reader.
    """
    hiding = hiding or Hiding()
    with archives.opened(path) as archive:
        entries = _entries(archive)
        headers = {name: _header(archive, entry, name) for name, entry in entries.items()}
        parts, split = _parts(headers, options)
        if isinstance(options.split, str):
            if options.split not in entries:
                raise InvalidRequest(f"split names {options.split!r}; there is no such array")
            split = _split(_whole(archive, entries, headers, options.split), options.split)
            del parts[options.split]
        if RESERVED & parts.keys():
            raise InvalidRequest("an array called split is to be named by the option split")
        if not parts:
            raise InvalidRequest("it holds no array")
        target = splits.target_of(list(parts), None) if options.target is None else options.target
        classes: list[str] | None = None
        arrays = []
        for name, held in parts.items():
            header = headers[held[0]]
            if header.dtype.kind in "US":
                if name != target:
                    raise InvalidRequest(
                        f"array {name!r} holds texts, and is not the target; texts are for a table"
                    )
                texts = [_whole(archive, entries, headers, part) for part in held]
                file, classes = _named(np.concatenate(texts), out, name, hiding)
            else:
                file = ArrayFile(out, name, header.dtype.str, list(header.shape[1:]))
                for part in held:
                    for chunk in _chunks(archive, entries, headers, part):
                        file.write(chunk)
            arrays.append(file)
    return finish(arrays, out, options, "npz", classes=classes, split=split, hiding=hiding)


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename.removesuffix(".npy")
        if name == entry.filename or _NAME.match(name) is None or ".." in name:
            raise InvalidRequest(f"the entry {entry.filename[:100]!r} is no array of a plain name")
        found[name] = entry
    if not 0 < len(found) <= ARRAYS:
        raise InvalidRequest(f"it holds {len(found)} arrays; it may have from 1 to {ARRAYS}")
    return dict(sorted(found.items()))


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Header:
    with archive.open(entry) as file:
        start = file.read(12)
        if start[:6] != b"\x93NUMPY" or start[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
            raise InvalidRequest(f"{name!r} is no array of NumPy's")
        wide = 2 if start[6] == 1 else 4
        length = int.from_bytes(start[8 : 8 + wide], "little")
        if length > HEADER_BYTES:
            raise InvalidRequest(f"the header of {name!r} is too long")
        text = start[8 + wide :] + file.read(length - (4 - wide))
    try:
        told = ast.literal_eval(text.decode("utf-8").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        told = None
    if not isinstance(told, dict) or told.keys() != {"descr", "fortran_order", "shape"}:
        raise InvalidRequest(f"the header of {name!r} is damaged")
    header = Header(
        _dtype(told["descr"], name), told["fortran_order"] is True, told["shape"], 8 + wide + length
    )
    _check_shape(header, entry, name)
    return header


def _dtype(told: Any, name: str) -> np.dtype[Any]:
    """
    Raises:
        InvalidRequest: of anything but numbers, booleans and texts.
    """
    texts = _TEXTS.match(told) if isinstance(told, str) else None
    few = texts is not None and 0 < int(texts[2]) <= TEXT
    if isinstance(told, str) and (few or _NUMBERS.match(told)):
        found: np.dtype[Any] = np.dtype(told)
        return found
    if isinstance(told, str) and told.lstrip("<>|=").startswith("O"):
        raise InvalidRequest(
            f"array {name!r} holds objects of Python (dtype=object), which are never read: "
            "convert it to numbers or texts"
        )
    raise InvalidRequest(f"array {name!r} is of dtype {str(told)[:64]}, which is not read")


def _check_shape(header: Header, entry: zipfile.ZipInfo, name: str) -> None:
    shape = header.shape
    if not isinstance(shape, tuple) or not 1 <= len(shape) <= DIMENSIONS:
        raise InvalidRequest(f"array {name!r} is to have from 1 to {DIMENSIONS} dimensions")
    if any(type(one) is not int or not 0 <= one <= 1 << 40 for one in shape):
        raise InvalidRequest(f"array {name!r} has no possible shape")
    if 0 in shape[1:]:
        raise InvalidRequest(f"array {name!r} of shape {shape} is empty")
    if prod(shape) * header.dtype.itemsize != entry.file_size - header.start:
        raise InvalidRequest(
            f"array {name!r} is said to have shape {shape} of {header.dtype}, which is not as many "
            f"bytes as there are ({entry.file_size - header.start})"
        )


def _parts(
    headers: dict[str, Header], options: Options
) -> tuple[dict[str, list[str]], NDArray[np.uint8] | None]:
    """Arrays by name, each with the entries that hold its rows, and the splits of all rows where
    names say them: ``x_train``, ``y_train``, ``x_test``, ``y_test`` are ``x`` and ``y``.

    Raises:
        InvalidRequest: arrays of one split have unlike numbers of rows, or there are none.
    """
    found: dict[str, dict[int, str]] = {}
    for name in headers:
        end = next((end for end in SPLITS if name.endswith(end) and name != end), None)
        if end is None:
            break
        found.setdefault(name.removesuffix(end), {})[SPLITS[end]] = name
    held = {tuple(sorted(one)) for one in found.values()}
    paired = held in ({(0, 1)}, {(0, 2)}, {(0, 1, 2)})
    if not paired or sum(map(len, found.values())) < len(headers):
        _rows(headers, headers)
        return {name: [name] for name in headers}, None
    if options.split != Options().split:
        raise InvalidRequest("the arrays' names tell the splits; leave out the option split")
    (numbers,) = held
    counts = [_rows(headers, [one[number] for one in found.values()]) for number in numbers]
    for one in found.values():
        kinds = {(headers[part].dtype.kind, headers[part].shape[1:]) for part in one.values()}
        sizes = {
            headers[part].dtype for part in one.values() if headers[part].dtype.kind not in "US"
        }
        if len(kinds) > 1 or len(sizes) > 1:
            raise InvalidRequest(f"{' and '.join(one.values())} have rows of unlike shape or dtype")
    parts = {name: [one[number] for number in numbers] for name, one in found.items()}
    return parts, np.repeat(np.array(numbers, np.uint8), counts)


def _rows(headers: dict[str, Header], names: Iterable[str]) -> int:
    lengths = {name: headers[name].shape[0] for name in names}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in list(lengths.items())[:20])
        raise InvalidRequest(f"the arrays do not have the same number of rows: {told}")
    rows = next(iter(lengths.values()))
    if not 0 < rows <= ROWS:
        raise InvalidRequest("it has no rows" if not rows else f"it has over {ROWS} rows")
    return rows


def _chunks(
    archive: zipfile.ZipFile,
    entries: dict[str, zipfile.ZipInfo],
    headers: dict[str, Header],
    name: str,
) -> Iterator[NDArray[Any]]:
    """An array, some rows at a time."""
    header = headers[name]
    if header.fortran and len(header.shape) > 1:
        yield _whole(archive, entries, headers, name)
        return
    width = prod(header.shape[1:]) * header.dtype.itemsize
    each = max(1, CHUNK // width)
    with archive.open(entries[name]) as file:
        _exactly(file, header.start, name)
        for start in range(0, header.shape[0], each):
            rows = min(each, header.shape[0] - start)
            raw = _exactly(file, rows * width, name)
            yield np.frombuffer(raw, header.dtype).reshape(rows, *header.shape[1:])


def _whole(
    archive: zipfile.ZipFile,
    entries: dict[str, zipfile.ZipInfo],
    headers: dict[str, Header],
    name: str,
) -> NDArray[Any]:
    header = headers[name]
    size = prod(header.shape) * header.dtype.itemsize
    if size > IN_MEMORY:
        raise InvalidRequest(
            f"array {name!r} is read at once, and may have {IN_MEMORY >> 20} MiB: "
            "save it in C order (numpy.ascontiguousarray), texts as numbers"
        )
    with archive.open(entries[name]) as file:
        _exactly(file, header.start, name)
        flat = np.frombuffer(_exactly(file, size, name), header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _exactly(file: Any, count: int, name: str) -> bytes:
    parts = []
    while count:
        part = file.read(min(count, CHUNK))
        if not part:
            raise InvalidRequest(f"array {name!r} ends too early")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _texts(array: NDArray[Any], name: str) -> list[str]:
    if array.ndim != 1:
        raise InvalidRequest(f"array {name!r} of texts is to have one dimension")
    try:
        found = [one.decode() if isinstance(one, bytes) else str(one) for one in array.tolist()]
    except UnicodeDecodeError:
        raise InvalidRequest(f"array {name!r} holds bytes that are not UTF-8") from None
    if any("\0" in one or not one for one in found):
        raise InvalidRequest(f"array {name!r} has rows without a text, or with a NUL")
    return found


def _named(
    array: NDArray[Any], out: Path, name: str, hiding: Hiding
) -> tuple[ArrayFile, list[str]]:
    """Texts as numbers, and what the numbers stand for."""
    found = _texts(array, name)
    classes = sorted(set(found))
    number = {text: at for at, text in enumerate(classes)}
    counts = Counter(found)
    names = hiding.names(name, {one: counts[one] for one in classes})
    file = ArrayFile(out, name, "<i8", [], names)
    file.write(np.array([number[text] for text in found], np.int64))
    return file, names


def _split(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """The splits that an array says: by name, or as 0, 1, 2."""
    if array.dtype.kind in "US":
        found = [splits.NAMES.get(text.lower(), -1) for text in _texts(array, name)]
    elif array.dtype.kind in "iu" and array.ndim == 1:
        found = array.tolist()
    else:
        found = [-1]
    if any(one not in (0, 1, 2) for one in found):
        raise InvalidRequest(
            f"array {name!r} is to say train, validation or test (or 0, 1, 2) of each row"
        )
    return np.array(found, np.uint8)

"""I5 for data: a hostile file of each format, read by the confined process as the server has it.

Each is refused in words, its canary is not written, and nothing is left but what was uploaded.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import stat
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.training.reading import ME, TENANT, Desk, Read, desk
from tests.training.test_ingest_arrays import HEADER, npy, npz, picture, zipped

from openmaas.encryption.memory import Memory
from openmaas.errors import InvalidRequest, NotFound, StorageFull
from openmaas.placement import sandbox
from openmaas.training import reading
from openmaas.training.data import DESCRIPTION, PREVIEW

CANARY = "canary"


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as found:
        yield found


class Harm:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


def pickles(canary: Path) -> bytes:
    file = io.BytesIO()
    harm = np.array([Harm(canary)], dtype=object)
    np.savez(file, allow_pickle=True, x=harm)
    return file.getvalue()


def bare_pickle(canary: Path) -> bytes:
    return zipped({"x.npy": Harm(canary).__reduce__()[1][0].encode() + b"\x80\4."})


def header_lies(_: Path) -> bytes:
    return zipped({"x.npy": npy((HEADER % ("'<f8'", f"({2**40}, {2**20})")).encode(), bytes(64))})


def zip_bomb(_: Path) -> bytes:
    return npz(x=np.zeros(1 << 21))


def many_entries(_: Path) -> bytes:
    """A list of 100,000 entries, as short as it can be written."""
    entries = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0,
                    0, 0, 0) + name
        for name in (b"a/%05d.png" % number for number in range(100_000))
    )  # fmt: skip
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 100_000, 100_000,
                        len(entries), 0)  # fmt: skip
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(entries), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, len(entries), 0, 0)
    return entries + end64 + locator + end


def entry(name: str, mode: int, content: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/0.png", picture(0))
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, content)
    return file.getvalue()


def traversal(canary: Path) -> bytes:
    return entry(f"../../../{canary.name}/0.png", stat.S_IFREG | 0o644, picture(0))


def backwards(canary: Path) -> bytes:
    return entry(f"b\\..\\..\\{canary.name}.png", stat.S_IFREG | 0o644, picture(0))


def whole_path(canary: Path) -> bytes:
    return entry(f"{canary}/0.png", stat.S_IFREG | 0o644, picture(0))


def link(canary: Path) -> bytes:
    return entry("b/0.png", stat.S_IFLNK | 0o777, str(canary).encode())


def device(_: Path) -> bytes:
    return entry("b/0.png", stat.S_IFCHR | 0o666)


def pipe(_: Path) -> bytes:
    return entry("b/0.png", stat.S_IFIFO | 0o666)


def image_bomb(_: Path) -> bytes:
    """A PNG of 40,000 × 40,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">2I5B", 40_000, 40_000, 8, 6, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(
        b"IEND", b"")  # fmt: skip
    return zipped({"a/0.png": bomb, "b/0.png": bomb})


def parquet_bomb(_: Path) -> bytes:
    """A text of a million letters, once in the file and 100,000 times in the rows."""
    word = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), ["x" * 1_000_000])
    file = io.BytesIO()
    pq.write_table(pa.table({"a": word}), file, compression="zstd")
    return file.getvalue()


def parquet_of_runs(_: Path) -> bytes:
    """200 million equal numbers take some bytes each million."""
    file = io.BytesIO()
    table = pa.table({"a": pa.array(np.zeros(1_000_000, np.int64))})
    with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        for _ in range(101):
            writer.write_table(table)
    return file.getvalue()


def footer_lies(_: Path) -> bytes:
    return b"PAR1" + b"\x15\x04" * 1000 + (2000).to_bytes(4, "little") + b"PAR1"


def open_quote(_: Path) -> bytes:
    return b'a,b\n1,"' + b"x\n" * 2_000_000


def one_line(_: Path) -> bytes:
    return b"a,b\n" + b"1," * (20 << 20)


def nesting(_: Path) -> bytes:
    return b'{"a":' * 200_000 + b"1" + b"}" * 200_000


def wide_objects(_: Path) -> bytes:
    wide = json.dumps({f"c{n}": n for n in range(10_000)}).encode()
    return wide + b"\n{}" * 1_000_000


HOSTILE: list[tuple[str, Callable[[Path], bytes], str]] = [
    ("npz", pickles, "objects of Python"),
    ("npz", bare_pickle, "no array of NumPy's"),
    ("npz", header_lies, "not as many bytes as there are"),
    ("npz", zip_bomb, "over 100 times its size"),
    ("zip", many_entries, "100000 entries; too many"),
    ("zip", traversal, "unsafe name"),
    ("zip", backwards, "unsafe name"),
    ("zip", whole_path, "unsafe name"),
    ("zip", link, "a link, a device"),
    ("zip", device, "a link, a device"),
    ("zip", pipe, "a link, a device"),
    ("zip", image_bomb, "pixels|decompression bomb"),
    ("parquet", parquet_bomb, "unfolds to more than"),
    ("parquet", parquet_of_runs, "over 100000000 rows"),
    ("parquet", footer_lies, "damaged"),
    ("csv", open_quote, "line 2: a (quote is not closed|row has)"),
    ("csv", one_line, "line 2: a row has over 16 MB"),
    ("jsonl", nesting, "line 1: it is not JSON"),
    ("jsonl", wide_objects, "unfolds to more than"),
]


def stored(folder: Path) -> set[str]:
    """Everything below a folder but its database."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return {path for path in found if not path.startswith(("openmaas.db", "master.key"))}


@pytest.mark.parametrize(
    ("ending", "make", "words"), HOSTILE, ids=lambda one: getattr(one, "__name__", "")
)
async def test_it_is_refused_and_nothing_is_left(
    at: Desk, tmp_path: Path, ending: str, make: Callable[[Path], bytes], words: str
) -> None:
    canary = tmp_path / CANARY
    content = make(canary)
    failed = await at.read(content, f"x.{ending}")
    assert failed.state == "failed", failed.description
    assert failed.error is not None
    assert failed.error.code in ("invalid_request", "artifact_refused")
    assert re.search(words, failed.error.message), failed.error.message
    assert str(tmp_path) not in failed.error.message
    assert stored(at.folder) == {
        "uploads",
        f"uploads/{failed.upload}",
    }
    assert stored(at.memory.folder) == {"reading"}
    assert not [path for path in stored(tmp_path) if CANARY in path]
    assert at.uploads.get(failed.upload, TENANT).received == len(content)


# --- what the process may do, and what is believed of it -----------------------------------------

PROBE = """
import os, socket
def tried(what):
    try: what()
    except OSError as error: return type(error).__name__
    return 'done'
import json
print(json.dumps({
  'outside': tried(lambda: open(OUTSIDE, 'w')),
  'upload': tried(lambda: open(UPLOAD, 'r+b')),
  'database': tried(lambda: open(DATABASE, 'rb')),
  'network': tried(lambda: socket.create_connection(('127.0.0.1', PORT), 2)),
  'inside': tried(lambda: open('out/x', 'w')),
  'environment': sorted(os.environ),
}))
"""


def test_the_process_reads_the_upload_and_writes_its_folder(
    at: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a file makes a library of it do."""
    if sandbox.READS not in sandbox.available():
        pytest.skip("this kernel confines no process so")
    monkeypatch.setenv("OPENMAAS_ADMIN_KEY", "a secret")
    upload = at.upload(b"a,b\n1,2\n")
    scratch = at.memory.path("reading", "ds_0")
    source = at.reader._prepare(scratch, at.uploads.whole(upload.id, TENANT))
    outside = tmp_path / "outside"
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {
            "OUTSIDE": str(outside),
            "UPLOAD": str(source),
            "DATABASE": str(at.folder / "openmaas.db"),
            "PORT": server.getsockname()[1],
        }
        probe = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + PROBE
        command = reading._command(scratch, source)
        assert command[-1] == "openmaas.training.ingest"
        done = subprocess.run(
            [*command[:-1], "timeit", "--", "-n1", "-r1", f"exec({probe!r}, {{}})"],
            cwd=scratch, env=reading._environment(scratch), capture_output=True, text=True,
        )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[0])
    assert found["inside"] == "done"
    for what in ("outside", "upload", "database"):
        assert found[what] == "PermissionError", what
    assert found["network"] != "done"
    assert not any(name.startswith("OPENMAAS") and name != sandbox.ENFORCED_VARIABLE
                   for name in found["environment"])  # fmt: skip
    assert not outside.exists()
    assert source.read_bytes() == b"a,b\n1,2\n"


@pytest.fixture
def answered(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A folder as the process leaves it, and its answer."""
    read = Read("csv", b"a,label\n1,x\n2,y\n", tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (read.out / DESCRIPTION).unlink()
    read.out.rename(scratch / "out")
    answer = {"description": msgspec.to_builtins(read.description),
              "preview": msgspec.to_builtins(read.preview)}  # fmt: skip
    return scratch, answer


def believed(scratch: Path, answer: Any) -> Any:
    (scratch / "result.json").write_bytes(msgspec.json.encode(answer))
    return reading._answer(scratch, 0, "ds_0", Memory(scratch, any_disk=True))


def test_what_is_sound_is_believed(answered: tuple[Path, dict[str, Any]]) -> None:
    scratch, answer = answered
    told = believed(scratch, answer)
    assert told.rows == 2
    assert told.bytes == sum(
        path.stat().st_size for path in (scratch / "out").iterdir() if path.name != PREVIEW
    )


CONTRADICTIONS: list[dict[str, Any]] = [
    {"rows": 3},
    {"rows": 0, "splits": {"train": 0, "validation": 0, "test": 0}},
    {"splits": {"train": 2}},
    {"fingerprint": "x"},
    {"target": "nope"},
    {"columns": []},
    {"kind": "arrays"},
    {"rows": "2"},
    {"bytes": None},
]


@pytest.mark.parametrize("change", CONTRADICTIONS, ids=str)
def test_what_contradicts_itself_is_not_believed(
    answered: tuple[Path, dict[str, Any]], change: dict[str, Any]
) -> None:
    scratch, answer = answered
    answer["description"] |= change
    with pytest.raises(InvalidRequest):
        believed(scratch, answer)


@pytest.mark.parametrize("answer", [{}, [], None, "x", {"description": None}, {"error": 1}])
def test_no_answer_is_none(answered: tuple[Path, dict[str, Any]], answer: Any) -> None:
    with pytest.raises(InvalidRequest):
        believed(answered[0], answer)


@pytest.mark.parametrize("name", ["more", "dataset.json", "rows.parquet", "split.npy"])
@pytest.mark.parametrize("harm", ["link", "hard link", "folder", "pipe"])
def test_files_that_it_should_not_leave(
    answered: tuple[Path, dict[str, Any]], name: str, harm: str
) -> None:
    scratch, answer = answered
    path = scratch / "out" / name
    path.unlink(missing_ok=True)
    (scratch / "secret").write_text("x")
    if harm == "link":
        path.symlink_to(scratch / "secret")
    elif harm == "hard link":
        path.hardlink_to(scratch / "secret")
    elif harm == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(InvalidRequest, match="other files"):
        believed(scratch, answer)


def test_its_words_are_cleaned_and_cut(answered: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(StorageFull, match=r"[0-9,]+ of [0-9,]+ are free"):
        believed(answered[0], {"error": "storage_full", "message": ""})
    answer = {"error": "invalid_request", "message": "a\x1b[2J\0b" + "x" * 10_000}
    with pytest.raises(InvalidRequest) as caught:
        believed(answered[0], answer)
    assert caught.value.message.startswith("a [2J b")
    assert len(caught.value.message) == 4000
    with pytest.raises(InvalidRequest):  # it may say no more than that something is wrong
        believed(answered[0], answer | {"error": "storage_unavailable"})


async def test_too_much_memory_ends_the_process_alone(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ADDRESS_SPACE", 320 << 20)
    failed = await at.read(npz(packed=False, x=np.zeros((2, 40 << 20), np.uint8)), "x.npz")
    assert failed.error is not None
    assert "memory" in failed.error.message
    monkeypatch.undo()
    assert (await at.read(b"a,b\n1,2\n")).state == "ready"


async def test_what_takes_too_long_is_ended(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SECONDS", 0.01)
    failed = await at.read(b"a,b\n1,2\n")
    assert failed.error is not None
    assert "within" in failed.error.message


async def test_a_data_set_that_is_removed_meanwhile_is_not_kept(at: Desk) -> None:
    made = at.dataset(b"a,b\n1,2\n")
    claimed = at.datasets.claim()
    assert claimed is not None
    at.datasets.remove(made.id, TENANT, ME)
    await at.reader._read(claimed)
    with pytest.raises(NotFound):
        at.datasets.get(made.id, TENANT)
    assert not list(at.datasets.folder.iterdir())

"""A GGUF header is believed in nothing that was not checked against the file."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest

from openmaas.errors import ArtifactRefused
from openmaas.registry.gguf import read_header
from openmaas.registry.importers import gguf_writer
from openmaas.registry.importers.gguf_weights import GgufWeights


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(tensors: int = 1, entries: int = 1, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


ARCHITECTURE = text("general.architecture") + struct.pack("<I", 8) + text("llama")


def tensor(shape: tuple[int, ...] = (4, 2), kind: int = 0, offset: int = 0) -> bytes:
    return (
        text("t")
        + struct.pack("<I", len(shape))
        + struct.pack(f"<{len(shape)}Q", *shape)
        + struct.pack("<IQ", kind, offset)
    )


def write(path: Path, *parts: bytes, data: int = 32) -> Path:
    content = b"".join(parts)
    path.write_bytes(content + b"\0" * (-len(content) % 32) + b"\0" * data)
    return path


def test_a_sound_header_is_read(tmp_path: Path) -> None:
    found = read_header(write(tmp_path / "m", header(), ARCHITECTURE, tensor()))
    assert found.architecture == "llama"
    assert [(entry.name, entry.type, entry.shape) for entry in found.tensors] == [
        ("t", "F32", (4, 2))
    ]


@pytest.mark.parametrize(
    "parts",
    [
        [header(tensors=1 << 62), ARCHITECTURE, tensor()],
        [header(entries=1 << 62), ARCHITECTURE, tensor()],
        [header(entries=2), ARCHITECTURE, ARCHITECTURE, tensor()],
        [header(version=1), ARCHITECTURE, tensor()],
        [header(version=0x03000000), ARCHITECTURE, tensor()],
        [header(), struct.pack("<Q", 1 << 63), b"general"],
        [header(), text("k"), struct.pack("<I", 99), tensor()],
        [header(), text("k"), struct.pack("<IIQ", 9, 4, 1 << 60), tensor()],
        [header(), text("k"), struct.pack("<IIQ", 9, 8, 1 << 22), tensor()],
        [header(), text("k"), struct.pack("<IIQ", 9, 8, 1), struct.pack("<Q", 1 << 40), tensor()],
        [header(), text("k"), b"".join(struct.pack("<IIQ", 9, 9, 1) for _ in range(9)), tensor()],
        [header(), text("k"), struct.pack("<I", 8), struct.pack("<Q", 2), b"\xff\xfe", tensor()],
        [header(), ARCHITECTURE, tensor((1 << 32, 1 << 32))],
        [header(), ARCHITECTURE, tensor((0, 4))],
        [header(), ARCHITECTURE, tensor((4, 4))],
        [header(), ARCHITECTURE, tensor((2,) * 4 + (2,))],
        [header(), ARCHITECTURE, tensor(offset=1 << 63)],
        [header(), ARCHITECTURE, tensor(offset=4)],
        [header(), ARCHITECTURE, tensor(offset=32)],
        [header(), ARCHITECTURE, tensor(kind=4)],
        [header(), ARCHITECTURE, tensor((16, 2), kind=2)],
        [header(tensors=2), ARCHITECTURE, tensor(), tensor()],
        [header(), text("general.alignment"), struct.pack("<II", 4, 0), tensor()],
        [header(), text("general.alignment"), struct.pack("<II", 4, 1 << 31), tensor()],
        [header()],
        [b"GGUF"],
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, parts: list[bytes]) -> None:
    with pytest.raises(ArtifactRefused, match="GGUF header is damaged"):
        read_header(write(tmp_path / "m", *parts), arrays=["k"])


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    sound = write(tmp_path / "m", header(), ARCHITECTURE, tensor()).read_bytes()
    chance = random.Random(3)
    path = tmp_path / "damaged"
    for _ in range(2000):
        damaged = bytearray(sound)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.randrange(4, len(damaged) + 1)])
        try:
            found = read_header(path, arrays=["k"])
        except ArtifactRefused:
            continue
        for entry in found.tensors:
            assert 0 <= entry.offset <= entry.offset + entry.size <= path.stat().st_size


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    values = {
        "matrix.weight": np.linspace(-3, 3, 4 * 64, dtype=np.float32).reshape(4, 64),
        "narrow.weight": np.linspace(-1, 1, 4 * 5, dtype=np.float32).reshape(4, 5),
        "norm.weight": np.linspace(0, 1, 7, dtype=np.float32),
    }

    class Given:
        def names(self) -> list[str]:
            return list(values)

        def __contains__(self, name: object) -> bool:
            return name in values

        def shape(self, name: str) -> tuple[int, ...]:
            return values[name].shape

        def __call__(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            return values[name]

        def rows(
            self, name: str, at: list[int]
        ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            return values[name][at]

    metadata = {
        "general.architecture": "llama",
        "flag": True,
        "count": 7,
        "part": 0.5,
        "words": ["a", "bc"],
        "kinds": [1, 3],
    }
    path = tmp_path / "m.gguf"
    gguf_writer.write(path, metadata, Given())
    found = read_header(path, arrays=["words", "kinds"])
    assert found.metadata == metadata
    weights = GgufWeights(path, found)
    for name, original in values.items():
        block = np.abs(original).max() / 127
        assert np.abs(weights(name) - original).max() <= block
    assert (weights.rows("matrix.weight", [3, 0]) == weights("matrix.weight")[[3, 0]]).all()

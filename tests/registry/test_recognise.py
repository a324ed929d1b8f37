"""Formats are told by content; a pickle is refused whatever it is called."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from openmaas.errors import ArtifactRefused
from openmaas.registry.recognise import recognise
from tests.registry import small_models


def archive(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, content in files.items():
            out.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return path


def test_each_format_under_a_foreign_name(tmp_path: Path) -> None:
    gguf = tmp_path / "a.txt"
    gguf.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    assert recognise(gguf).kind == "gguf"
    assert recognise(small_models.onnx_file(tmp_path / "model.pkl")).kind == "onnx"
    keras = archive(
        tmp_path / "m.zip", config_dot_json=b"", metadata_dot_json=b"", model_dot_weights_dot_h5=b""
    )
    assert recognise(keras).kind == "keras"
    ir = small_models.openvino_ir(tmp_path / "ir")
    assert recognise(ir) == recognise(ir / "small.xml")
    assert recognise(ir).kind == "openvino_ir"
    assert recognise(small_models.decoder_folder(tmp_path / "llm", "llama")).kind == "decoder"
    encoder = small_models.encoder_folder(tmp_path / "encoder", "bert")
    assert recognise(encoder).kind == "sentence_encoder"


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("the pickle ran",)


@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors", "model.onnx", "weights.bin"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_refused_under_any_name(tmp_path: Path, name: str, protocol: int) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Evil(), protocol=protocol))
    with pytest.raises(ArtifactRefused, match=r"pickle.*safetensors"):
        recognise(path)
    folder = small_models.encoder_folder(tmp_path / "folder", "bert")
    (folder / name).write_bytes(path.read_bytes())
    with pytest.raises(ArtifactRefused, match="pickle"):
        recognise(folder)


def test_packed_and_wrapped_pickles_are_refused(tmp_path: Path) -> None:
    raw = pickle.dumps(Evil())
    cases = {
        "torch": archive(tmp_path / "torch", archive__data_dot_pkl=raw, archive__version=b"3"),
        "flat torch": archive(tmp_path / "flat", data_dot_pkl=raw),
        "numpy": archive(tmp_path / "npz", array_dot_npy=b"\x93NUMPY"),
    }
    for name, content in {
        "joblib": zlib.compress(raw),
        "gzip": b"\x1f\x8b\x08" + raw,
        "xz": b"\xfd7zXZ\x00" + raw,
        "npy": b"\x93NUMPY\x01\x00" + raw,
    }.items():
        cases[name] = tmp_path / name
        cases[name].write_bytes(content)
    for path in cases.values():
        with pytest.raises(ArtifactRefused, match="pickle"):
            recognise(path)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, r"\.keras archive"),
        (struct.pack("<Q", 40) + b'{"a":{}}' + b" " * 40, "whole folder"),
        (b"<?xml version='1.0'?><net name='x'/>", r"\.bin"),
        (b"PK\3\4 but no archive", "truncated"),
        (b"hello", "no format that is known"),
        (b"", "no format that is known"),
        (b"\x08\x07", "no format that is known"),
        (b"\x08\x08\x3a\xff\xff\xff\xff\x7f", "no format that is known"),
    ],
)
def test_what_is_not_taken_comes_with_advice(tmp_path: Path, content: bytes, advice: str) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ArtifactRefused, match=advice):
        recognise(path)


def test_other_architectures_are_named(tmp_path: Path) -> None:
    folder = small_models.encoder_folder(tmp_path / "folder", "bert")
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["BertForQuestionAnswering"], "model_type": "bert"})
    )
    with pytest.raises(ArtifactRefused, match="BertForQuestionAnswering"):
        recognise(folder)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactRefused, match="damaged"):
        recognise(folder)


def test_archives_are_judged_before_they_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "m"
    for name in ("../x", "/etc/x", "a/../../x", "a\\x", "c:/x"):
        with zipfile.ZipFile(path, "w") as out:
            out.writestr(name, b"")
        with pytest.raises(ArtifactRefused, match="unsafe name"):
            recognise(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("bomb", b"\0" * (8 << 20))
    with pytest.raises(ArtifactRefused, match="100 times"):
        recognise(path)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(link, b"/etc/passwd")
    with pytest.raises(ArtifactRefused, match="link"):
        recognise(path)
    with zipfile.ZipFile(path, "w") as out:
        for at in range(20_001):
            out.writestr(str(at), b"")
    with pytest.raises(ArtifactRefused, match="too many"):
        recognise(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr("config.json", b"x" * 1000)
    path.write_bytes(buffer.getvalue()[:-30])
    with pytest.raises(ArtifactRefused):
        recognise(path)


def test_the_gateway_s_part_imports_no_engine() -> None:
    """Parsers of model files are loaded in the process that converts, and nowhere else."""
    code = (
        "import sys; from openmaas.registry import artifacts, catalog, importing, recognise; "
        "print([m for m in ('numpy', 'onnx', 'openvino', 'tokenizers', 'huggingface_hub', "
        "'safetensors', 'torch', 'keras') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

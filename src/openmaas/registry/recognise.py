"""What a model file is, told by its content and never by its name.

Only magic numbers, lists of names and small JSON files are looked at here; whatever needs a
parser is left to the process that converts. Sources of the magic numbers: ggml's ``gguf.md``,
``onnx.proto``, Python's ``pickletools``, the HDF5 and zip specifications, NumPy's ``format.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

import msgspec

from openmaas.errors import ArtifactRefused
from openmaas.registry import archives

Kind = Literal[
    "gguf",
    "openvino_ir",
    "onnx",
    "keras",
    "sentence_encoder",
    "text_classifier",
    "token_classifier",
    "onnx_classifier",
    "onnx_token_classifier",
    "keras_classifier",
    "keras_tabular",
    "keras_seq2seq",
    "encoder_head",
    "decoder",
    "translator",
    "marian_student",
]

HEAD = 4096
MAX_JSON = 4 << 20
MAX_TOKENIZER = 64 << 20  # of a quarter of a million pieces, as XLM-RoBERTa has: 17 MB
MAX_ONNX_FIELDS = 100_000
CLASSIFIER = "ForSequenceClassification"
TAGGER = "ForTokenClassification"
ENCODERS = ("bert", "roberta", "distilbert", "xlm-roberta")  # config.json's model_type
TRANSLATORS = ("marian", "m2m_100", "t5")  # NLLB's model_type is m2m_100

_PICKLE = (
    "is a Python pickle, which can run any code when it is read; it is never opened here. "
    "Save the weights as safetensors (safetensors.torch.save_file), or export to ONNX."
)
_TEXT_PICKLE = re.compile(rb"[\(\]\}\)lt0-9p\n]*c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n")
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
_KERAS_FILES = {"config.json", "metadata.json", "model.weights.h5"}
# field number → wire type of onnx.ModelProto
_ONNX_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}


class Recognised(msgspec.Struct, frozen=True):
    kind: Kind
    path: Path  # the file that holds the model, or the folder where several do together


def recognise(path: Path) -> Recognised:
    """
    Raises:
        ArtifactRefused: a pickle, or nothing that is known; the message says what to do.
    """
    if path.is_dir():
        return _folder(path)
    kind = _file(path)
    if kind == "openvino_ir":
        _require_weights(path)
    return Recognised(kind, path)


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """A small JSON file of a model's folder.

    Raises:
        ArtifactRefused: it is missing, too large or damaged.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(most + 1)
        if len(text) > most:
            raise ArtifactRefused(f"{path.name} is too large.")
        return msgspec.json.decode(text)
    except FileNotFoundError:
        raise ArtifactRefused(f"The folder has no {path.name}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactRefused(f"{path.name} is damaged: {error}") from None


def refuse_pickles(folder: Path) -> None:
    """Looks at the head of every file of a folder.

    Raises:
        ArtifactRefused: one of them is a pickle, or packed so that it might hide one.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                head = file.read(HEAD)
            _refuse_pickle(path, head)
            if head.startswith(b"PK\3\4"):
                with archives.opened(path) as archive:
                    _refuse_torch(path, archive.namelist())


def _folder(folder: Path) -> Recognised:
    refuse_pickles(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if (folder / "config.json").is_file():
        if (folder / "openvino_model.xml").is_file():
            return Recognised("openvino_ir", folder)
        if any(path.suffix == ".safetensors" for path in files):
            return Recognised(_transformer(folder), folder)
        onnx = _onnx_classifier(folder, files)
        if onnx is not None:
            return Recognised(onnx, folder)
        if _lone(files, ".keras") and (folder / "tokenizer.json").is_file():
            return Recognised("keras_classifier", folder)
    if any(path.suffix == ".spm" for path in files) and any(map(_is_marian, files)):
        return Recognised("marian_student", folder)
    for suffix in (".xml", ".onnx", ".gguf", ".keras"):
        found = [path for path in files if path.suffix == suffix]
        if len(found) == 1:
            kind = _file(found[0])
            if kind == "openvino_ir":
                _require_weights(found[0])
            # ONNX may keep its weights in files beside it; the other formats are one file.
            return Recognised(kind, found[0])
        if found:
            raise ArtifactRefused(f"{folder.name} holds several {suffix} files; push one of them.")
    raise ArtifactRefused(
        f"{folder.name} holds no model that is known here: GGUF, OpenVINO IR, ONNX, a .keras "
        "archive, config.json with safetensors, or a Marian student with its .spm."
    )


def _onnx_classifier(folder: Path, files: list[Path]) -> Kind | None:
    """What a lone ONNX file is by a classifier's settings and tokenizer beside it."""
    _, architectures = _architectures(folder)
    if not _lone(files, ".onnx") or not (folder / "tokenizer.json").is_file():
        return None
    if any(name.endswith(TAGGER) for name in architectures):
        return "onnx_token_classifier"
    return "onnx_classifier" if any(name.endswith(CLASSIFIER) for name in architectures) else None


def _lone(files: list[Path], suffix: str) -> bool:
    return sum(path.suffix == suffix for path in files) == 1


def _architectures(folder: Path) -> tuple[Any, list[str]]:
    """Family and names of classes, as config.json says."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        return None, []
    names = config.get("architectures")
    architectures = [str(name)[:80] for name in names] if isinstance(names, list) else []
    return config.get("model_type"), architectures


def _transformer(folder: Path) -> Kind:
    family, architectures = _architectures(folder)
    if any(name.endswith("ForCausalLM") for name in architectures):
        return "decoder"
    bare = all(name.endswith("Model") for name in architectures)  # no classifier on top
    if family in ENCODERS and (bare or (folder / "modules.json").is_file()):
        return _headed(folder)
    if family in ENCODERS and any(name.endswith(CLASSIFIER) for name in architectures):
        return "text_classifier"
    if family in ENCODERS and any(name.endswith(TAGGER) for name in architectures):
        return "token_classifier"
    if family in TRANSLATORS and not any(name.endswith("EncoderModel") for name in architectures):
        return "translator"
    raise ArtifactRefused(
        f"{folder.name} is a {' or '.join(architectures) or 'model of no named architecture'}; "
        "read here are decoder language models (…ForCausalLM), of the BERT family sentence "
        f"encoders and classifiers (…{CLASSIFIER}, …{TAGGER}), and translators (Marian, "
        "M2M100, NLLB, T5). Export others to ONNX."
    )


def _headed(folder: Path) -> Kind:
    """A sentence encoder, or what the head beside it makes of it."""
    if not (folder / "head.json").is_file():
        return "sentence_encoder"
    head = read_json(folder / "head.json")
    tags = isinstance(head, dict) and head.get("task") == "tag"
    return "token_classifier" if tags else "text_classifier"


def _file(path: Path) -> Kind:
    with open(path, "rb") as file:
        head = file.read(HEAD)
        _refuse_pickle(path, head)
        if head.startswith(b"GGUF"):
            return "gguf"
        if head.startswith(b"PK\3\4"):
            return _archive(path)
        if head.startswith((b"<?xml", b"<net")) and b"<net" in head:
            return "openvino_ir"
        if head.startswith(b"\x89HDF\r\n\x1a\n"):
            raise ArtifactRefused(
                f"{path.name} is bare HDF5, which may hold code and links to other files. "
                "Save the Keras model as a .keras archive (model.save('name.keras'))."
            )
        if len(head) > 8 and head[8:9] == b"{" and head[6:8] == b"\0\0":
            raise ArtifactRefused(
                f"{path.name} holds safetensors alone; push the whole folder, with config.json."
            )
        if _is_onnx(file):
            return "onnx"
    raise ArtifactRefused(
        f"{path.name} is of no format that is known here: GGUF, OpenVINO IR (.xml with its .bin), "
        "ONNX, a .keras archive, or a folder with config.json and safetensors."
    )


def _require_weights(path: Path) -> None:
    if not path.with_suffix(".bin").is_file():
        raise ArtifactRefused(
            f"{path.name} is an OpenVINO IR; push the folder that holds it and its .bin together."
        )


def _refuse_pickle(path: Path, head: bytes) -> None:
    binary = len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5
    if binary or _TEXT_PICKLE.match(head):
        _refuse(path, _PICKLE)
    if head.startswith(b"\x93NUMPY"):
        _refuse(path, "is a NumPy file, which may hold a pickle. Export the model to ONNX.")
    zlib = len(head) > 1 and head[0] == 0x78 and (head[0] << 8 | head[1]) % 31 == 0
    if head.startswith(_PACKED) or zlib:
        _refuse(
            path,
            "is compressed, as joblib packs pickles. If it is a model file, unpack it and push "
            "that; a scikit-learn model can be exported to ONNX (skl2onnx).",
        )


def _archive(path: Path) -> Kind:
    with archives.opened(path) as archive:
        names = archive.namelist()
        _refuse_torch(path, names)
    if set(names) >= _KERAS_FILES:
        return "keras"
    raise ArtifactRefused(f"{path.name} is a zip archive, but no .keras model.")


def _refuse_torch(path: Path, names: list[str]) -> None:
    if any(name.endswith((".pkl", ".pickle")) for name in names):
        _refuse(path, f"was saved by torch.save and {_PICKLE}")
    if any(name.endswith(".npy") for name in names):
        _refuse(path, "holds NumPy arrays, which may be pickles. Export the model to ONNX.")


def _refuse(path: Path, why: str) -> NoReturn:
    raise ArtifactRefused(f"{path.name} {why}")


def _is_marian(path: Path) -> bool:
    """Marian's binary form: version 1, then how many tensors there are."""
    with open(path, "rb") as file:
        head = file.read(16)
    version, count = head[:8], int.from_bytes(head[8:], "little")
    return version == b"\1" + bytes(7) and path.name.startswith("model.") and 0 < count < 10_000


def _is_onnx(file: BinaryIO) -> bool:
    """Walks the outermost protobuf fields, which must be those of ModelProto and fill the file."""
    size = file.seek(0, 2)
    at = 0
    seen: set[int] = set()
    for _ in range(MAX_ONNX_FIELDS):
        if at == size:
            return {1, 7, 8} <= seen
        file.seek(at)
        field = file.read(20)
        tag, used = _varint(field, 0)
        if tag is None or _ONNX_FIELDS.get(tag >> 3) != tag & 7:
            return False
        value, used = _varint(field, used)
        if value is None:
            return False
        at += used + (value if tag & 7 == 2 else 0)
        if at > size:
            return False
        seen.add(tag >> 3)
    return False


def _varint(data: bytes, at: int) -> tuple[int | None, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            return None, at
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    return None, at

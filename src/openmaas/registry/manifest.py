"""What an artifact is, in one JSON file beside its bytes; its sha256 is the artifact's digest."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

import msgspec

from openmaas.errors import ArtifactRefused

Format = Literal[
    "openvino-ir",
    "openvino-encoder",
    "openvino-classifier",
    "openvino-tagger",
    "openvino-llm",
    "gguf",
    "ctranslate2",
    "openvino-translator",
    "openvino-tabular",
    "openvino-seq2seq",
]
"""``openvino-ir``: an ordinary network; ``openvino-encoder``: tokens → one unit vector;
``openvino-classifier``: tokens → a logit for each label;
``openvino-tagger``: tokens → a logit for each token and label;
``openvino-llm``: a language model as IR; ``gguf``: one for llama.cpp, ``model.gguf``;
``ctranslate2``: a translator for CTranslate2, with its tokenizer and ``translator.json``;
``openvino-translator``: one as two IRs, ``encoder.xml`` and ``decoder.xml``, greedy;
``openvino-tabular``: a network with an input for each column of ``columns.json``;
``openvino-seq2seq``: a reader and a writer that were trained here, two IRs, greedy."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
MANIFEST_NAME = "manifest.json"
MANIFEST_BYTES = 1 << 20
MAX_FILES = 64

_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_Label = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Text = Annotated[str, msgspec.Meta(max_length=4096)]


class Port(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input or output of a network; −1 stands for a dimension that is free."""

    name: str
    datatype: str  # Open Inference Protocol V2's names: FP32, INT64 …
    shape: list[int]


class StoredFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str  # a plain name: artifacts have no sub-folders
    size: _Count  # bytes
    sha256: _Sha256


class Verification(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What conversion measured before its result was accepted."""

    against: _Text  # what the result was compared with
    samples: _Count  # inputs tried
    max_abs_error: float  # largest |result − original| over all outputs of all samples
    compared: _Text  # which numbers those were


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an importer says of what it made."""

    format: Format
    task: Literal["chat", "embed", "predict", "classify", "translate", "summarize", "tag"]
    architecture: _Text  # as the model's own files name it: llama, bert, onnx, keras …
    inputs: list[Port] = []  # of ordinary networks
    outputs: list[Port] = []
    precision: Literal["f32", "bf16"] | None = None  # to compute in; None: the runtime's choice
    context_tokens: _Count = 0  # prompt + answer; of encoders: input
    dimensions: _Count = 0  # of an embedding
    labels: list[_Label] = []  # of a classifier or network, in the order of its numbers
    multi_label: bool = False  # its labels exclude one another not: sigmoid, not softmax
    pairs: bool = False  # it reads pairs of texts, as rerankers do
    special_tokens: dict[str, str] = {}  # bos_token, eos_token … → text, for chat templates
    eos_token_ids: list[int] = []  # any of which ends an answer
    add_bos_token: bool = False  # plain prompts (not chat) start with bos_token
    generation: dict[str, float] = {}  # the model's own defaults: temperature, top_p, top_k
    source_languages: list[str] = []  # of a translator: its own codes; empty: it does not say
    target_languages: list[str] = []
    verification: Verification | None = None  # None: stored as it came
    converted_by: dict[str, str] = {}  # package → version


class Manifest(Description, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Literal[1] = 1
    files: list[StoredFile]  # sorted by path
    source: _Text  # file:, pypi:, hf: or https:
    source_sha256: _Sha256  # of the file fetched, or of the listing of several
    licence: _Text = ""

    @property
    def size(self) -> int:
        """Bytes on disk, without the manifest."""
        return sum(file.size for file in self.files)


def encode(manifest: Manifest) -> bytes:
    """The canonical form: one manifest, one byte string."""
    return msgspec.json.encode(manifest, order="deterministic")


def digest_of(encoded: bytes) -> str:
    return "sha256:" + hashlib.sha256(encoded).hexdigest()


def decode(encoded: bytes) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        ArtifactRefused: it is no manifest, or one that names files unsafely.
    """
    manifest: Manifest = _convert(encoded, Manifest)
    names = [file.path for file in manifest.files]
    if len(names) > MAX_FILES or len(set(names)) != len(names):
        raise ArtifactRefused("The artifact's manifest lists too many files, or one twice.")
    for name in names:
        check_name(name)
    return manifest


def decode_description(encoded: bytes) -> Description:
    """Reads what a conversion process reported; it is not trusted either.

    Raises:
        ArtifactRefused: it is malformed.
    """
    description: Description = _convert(encoded, Description)
    return description


def check_digest(digest: str) -> str:
    """The digest's 64 hex digits; nothing else ever becomes part of a path.

    Raises:
        ArtifactRefused: it is no digest.
    """
    if not isinstance(digest, str) or DIGEST.match(digest) is None:
        raise ArtifactRefused("A digest is sha256: and 64 lower-case hex digits.")
    return digest.removeprefix("sha256:")


def check_name(name: str) -> None:
    if FILE_NAME.match(name) is None or name == MANIFEST_NAME:
        raise ArtifactRefused("An artifact's files have plain names: letters, digits, . _ -")


def _convert(encoded: bytes, kind: Any) -> Any:
    if len(encoded) > MANIFEST_BYTES:
        raise ArtifactRefused("The artifact's manifest is too large.")
    try:
        return msgspec.json.decode(encoded, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactRefused(f"The artifact's manifest is damaged: {error}") from None

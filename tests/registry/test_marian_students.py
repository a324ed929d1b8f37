"""Damaged files of Marian's own form are refused, and say why; a wrong graph is found out."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from openmaas.errors import ArtifactRefused, ConversionFailed, OpenMaaSError
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importers import marian_student, marian_weights
from openmaas.registry.importers.marian_file import MarianFile
from openmaas.registry.importing import import_model
from tests.registry import small_translators
from tests.registry.harms import Harm, absent, raw
from tests.registry.small_translators import WIDTH

STUDENT = "model.enpt.intgemm.alphas.bin"
PIECES = "vocab.enpt.spm"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def said(old: str, new: str) -> Harm:
    """A setting within the file, of the same length, so that nothing else moves."""
    assert len(old) == len(new)
    return raw(STUDENT, lambda content: content.replace(old.encode(), new.encode()))


def number(at: int, value: int) -> Harm:
    """A 64-bit number of the file's beginning."""
    return raw(STUDENT, lambda old: old[:at] + struct.pack("<Q", value) + old[at + 8 :])


STUDENT_HARMS: list[tuple[str, Harm, type[OpenMaaSError], str]] = [
    ("cut", raw(STUDENT, lambda old: old[:-300]), ArtifactRefused, "beyond its end"),
    ("cut in its header", raw(STUDENT, lambda old: old[:600]), ArtifactRefused, "too early"),
    ("a long name", number(16, 1 << 40), ArtifactRefused, "too long"),
    ("a high rank", number(32, 1 << 40), ArtifactRefused, "too long"),
    ("huge data", number(40, 1 << 63), ArtifactRefused, "beyond its end"),
    ("another version", number(0, 2), ArtifactRefused, "known"),
    ("odd types", number(24, 0x999), ConversionFailed, "0x999"),
    ("another family", said("dec-cell: ssru", "dec-cell: lstm"), ConversionFailed, "dec-cell"),
    ("fewer layers said", said("enc-depth: 2", "enc-depth: 1"), ConversionFailed, "encoder_l2"),
    ("more layers said", said("dec-depth: 2", "dec-depth: 9"), ArtifactRefused, "decoder_l3"),
    ("no layers", said("enc-depth: 2", "enc-depth: 0"), ArtifactRefused, "enc-depth"),
    ("another width", said("dim-emb: 16", "dim-emb: 32"), ArtifactRefused, "shape"),
    ("a width of one", said("dim-emb: 16", "dim-emb: 01"), ArtifactRefused, "width"),
    ("negative", said("transformer-heads: 2", "transformer-heads:-2"), ArtifactRefused, "heads"),
    ("odd heads", said("transformer-heads: 2", "transformer-heads: 3"), ArtifactRefused, "heads"),
    ("two of one name", said("decoder_l1_rnn_Wf", "decoder_l2_rnn_Wf"), ArtifactRefused, "named"),
    ("a damaged tokenizer", raw(PIECES, lambda old: old[:-9]), ArtifactRefused, "cannot be read"),
    (
        "another tokenizer",
        raw(PIECES, lambda _: small_translators.pieces(["<unk>"])),
        ConversionFailed,
        "vocabulary",
    ),
    ("no tokenizer", absent(PIECES), ArtifactRefused, "no model that is known"),
    ("two models", raw("model.enfr.intgemm8.bin", lambda _: b""), ConversionFailed, "one model"),
    (
        "no languages",
        lambda folder: (folder / STUDENT).rename(folder / "model.bin"),
        ConversionFailed,
        "one model",
    ),
    (
        "a pickle beside it",
        raw("vocab.yml.json", lambda _: pickle.dumps([1])),
        ArtifactRefused,
        "pickle",
    ),
]


@pytest.mark.parametrize(
    ("harm", "error", "why"), [pytest.param(*rest, id=name) for name, *rest in STUDENT_HARMS]
)
def test_harmed_students_are_refused_and_why(
    store: ArtifactStore, tmp_path: Path, harm: Harm, error: type[OpenMaaSError], why: str
) -> None:
    folder = small_translators.complete(tmp_path / "m", "student")
    harm(folder)
    with pytest.raises(error, match=why) as caught:
        import_model(folder, store)
    assert "Error:" not in caught.value.message
    assert store.digests() == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_students_of_no_numbers_are_refused(
    store: ArtifactStore, tmp_path: Path, bad: float
) -> None:
    folder = small_translators.complete(tmp_path / "m", "student")
    name = "decoder_l1_ffn_b2"
    old = MarianFile(folder / STUDENT)(name, 1, WIDTH).values.tobytes()
    new = np.full(WIDTH, bad, np.float32).tobytes()
    raw(STUDENT, lambda content: content.replace(old, new))(folder)
    with pytest.raises((ArtifactRefused, ConversionFailed), match=r"finite|differ"):
        import_model(folder, store)
    assert store.digests() == []


def test_the_comparison_finds_a_wrong_student(tmp_path: Path) -> None:
    folder = small_translators.artifact(tmp_path, "student")
    model = marian_weights.read(tmp_path / "source" / STUDENT)
    exactly = marian_student.PRECISELY
    assert marian_student._compare(model, folder, exactly)[0] < marian_student.EXACT
    model.decoder[1]["cell_norm"][0][:4] += 1.0
    assert marian_student._compare(model, folder, exactly)[0] > marian_student.EXACT

"""Networks that were trained on JAX are served here with the answers that JAX gave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.inference import Predict, Score, Scored
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importing import import_model, import_trained
from openmaas.runtimes import openvino_embeddings
from tests.registry import exports, small_models
from tests.registry.exports import predicted, stored, tensor

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exports.made(tmp_path_factory.mktemp("trained"), "networks", "classifier")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.mark.parametrize("name", ["dense", "cnn", "lstm", "stacked", "attention", "two"])
def test_networks(trained: Path, store: ArtifactStore, name: str) -> None:
    said: list[str] = []
    runtime, manifest = stored("keras", trained / name, store, said)
    assert not any("torch" in text for text in said)
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 1e-5
    assert "held-out" in manifest.verification.against
    with np.load(trained / name / "rows.npz") as file:
        arrays = dict(file)
    wanted = [arrays[key] for key in sorted(arrays) if key.startswith("outputs")]
    assert [port.shape[1:] for port in manifest.outputs] == [list(one.shape[1:]) for one in wanted]
    given = [tensor(spec.name, arrays[spec.name]) for spec in runtime.info.inputs]
    (found,) = predicted(runtime, Predict(inputs=given))
    runtime.close()
    for ours, theirs in zip(found.values(), wanted, strict=True):
        assert np.abs(ours - theirs).max() < TOLERANCE
        assert np.ptp(theirs) > 0.01  # it tells rows apart
    assert runtime.info.labels == manifest.labels
    assert manifest.labels == (["low", "high", "never"] if name == "dense" else [])


def test_a_classifier_of_texts(trained: Path, store: ArtifactStore) -> None:
    runtime, manifest = stored("keras_classifier", trained / "classifier", store)
    assert (manifest.task, manifest.labels) == ("classify", ["a", "b", "c"])
    rows = exports.rows(trained / "classifier")
    (answer,) = runtime.run([Score(inputs=[row["text"] for row in rows])])
    runtime.close()
    found = softmax(answer)
    assert np.abs(found - [row["probabilities"] for row in rows]).max() < TOLERANCE


def test_a_head_on_a_stored_encoder(starters: Path, store: ArtifactStore, tmp_path: Path) -> None:
    encoders = ArtifactStore(starters / "artifacts")
    digest = next(
        one for one in encoders.digests() if encoders.manifest(one).format == "openvino-encoder"
    )
    folder = headed(encoders.open(digest), tmp_path / "export")
    runtime, manifest = stored("encoder_head", folder, store)
    assert (manifest.format, manifest.labels) == ("openvino-classifier", ["cold", "hot"])
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < TOLERANCE
    rows = exports.rows(folder)
    (answer,) = runtime.run([Score(inputs=[row["text"] for row in rows])])
    runtime.close()
    wanted = np.array([[1 - row["probabilities"][0], row["probabilities"][0]] for row in rows])
    assert np.abs(softmax(answer) - wanted).max() < TOLERANCE

    (folder / "head.safetensors").unlink()
    small_models.write_safetensors(
        folder / "head.safetensors",
        {"weight": np.ones((1, 7), np.float32), "bias": np.ones(1, np.float32)},
    )
    with pytest.raises(ArtifactRefused, match="does not fit an encoder of"):
        import_trained("encoder_head", folder, store, source="job:x")


def headed(encoder: Path, folder: Path) -> Path:
    """An export of a head of one number on an encoder."""
    from openmaas.inference import Embed

    texts = ["It snows.", "The oven is on fire", "ice", "Lava flowed down to the sea for a week."]
    reader: Any = openvino_embeddings.open(encoder, {"precision": "f32"})
    (answer,) = reader.run([Embed(inputs=list(texts))])
    reader.close()
    vectors = np.frombuffer(answer.data, "<f4").reshape(len(texts), -1)
    weight = np.random.default_rng(0).normal(0, 5, (1, vectors.shape[1])).astype(np.float32)
    shares = 1 / (1 + np.exp(-(vectors @ weight.T + 0.1)))
    shutil.copytree(encoder, folder / "encoder")
    head = {"weight": weight, "bias": np.array([0.1], np.float32)}
    small_models.write_safetensors(folder / "head.safetensors", head)
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "cold", "1": "hot"}}))
    rows = [
        {"text": text, "probabilities": [float(share)]}
        for text, share in zip(texts, shares[:, 0], strict=True)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


def softmax(answer: Any) -> Any:
    assert isinstance(answer, Scored)
    powers = np.exp(np.frombuffer(answer.data, "<f4").reshape(-1, answer.labels).astype(np.float64))
    return powers / powers.sum(1, keepdims=True)


def other_answers(folder: Path) -> None:
    with np.load(folder / "rows.npz") as file:
        arrays = dict(file)
    np.savez(folder / "rows.npz", **arrays | {"outputs": arrays["outputs"] + 0.01})


def test_what_answers_otherwise_than_was_trained_is_refused(
    trained: Path, store: ArtifactStore, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained / "dense", tmp_path / "export"))
    other_answers(folder)
    said: list[str] = []
    with pytest.raises(ConversionFailed, match=r"differs by 0\.01"):
        import_trained(
            "keras", folder, store, source="job:x", progress=lambda _, __, text: said.append(text)
        )
    assert any("once more, through torch" in text for text in said)
    assert store.digests() == []


def cut(folder: Path) -> None:
    path = folder / "model.keras"
    path.write_bytes(path.read_bytes()[:-1000])


def flipped(folder: Path) -> None:
    path = folder / "model.keras"
    content = bytearray(path.read_bytes())
    for at in range(0, len(content), 97):
        content[at] ^= 0x10
    path.write_bytes(content)


def one_flipped(folder: Path) -> None:
    path = folder / "model.keras"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


def pickled(folder: Path) -> None:
    np.savez(folder / "rows.npz", x=np.array([print], dtype=object), outputs=np.zeros(1))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (cut, "truncated|damaged"),
        (flipped, "."),
        (one_flipped, "damaged"),
        (pickled, "rows.npz is damaged"),
        (lambda folder: np.savez(folder / "rows.npz", y=np.zeros(3)), "holds y, not"),
        (lambda folder: (folder / "labels.json").write_text('["a", "b"]'), "2 labels"),
        (lambda folder: (folder / "labels.json").write_text('["a", "a", "b"]'), "the same"),
        (lambda folder: (folder / "elsewhere").symlink_to("/etc/passwd"), "link"),
    ],
)
def test_damaged_exports_are_refused(
    trained: Path,
    store: ArtifactStore,
    tmp_path: Path,
    harm: Callable[[Path], Any],
    why: str,
) -> None:
    folder = Path(shutil.copytree(trained / "dense", tmp_path / "export"))
    harm(folder)
    with pytest.raises(ArtifactRefused, match=why):
        import_trained("keras", folder, store, source="job:x")
    assert store.digests() == []
    assert list((store.root / ".staging").iterdir()) == []


def test_a_file_is_known_by_its_content_alone(
    trained: Path, store: ArtifactStore, tmp_path: Path
) -> None:
    """As uploads lie on the disk, by an id."""
    digests = set()
    for name in ("upload_1", "upload_2"):
        path = Path(shutil.copyfile(trained / "dense" / "model.keras", tmp_path / name))
        digest, manifest = import_model(path, store, recorded="push:dense.keras")
        digests.add(digest)
        assert manifest.source == "push:dense.keras"
        assert manifest.verification is not None
        assert manifest.verification.against == "model.predict of Keras"
    assert len(digests) == 1

"""Translators by the way that every model comes in: told apart, compared, refused when damaged."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openmaas.errors import ArtifactRefused, ConversionFailed, OpenMaaSError
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importers import translator, translator_spec, translator_weights
from openmaas.registry.importing import import_model
from openmaas.registry.recognise import recognise
from tests.registry import small_translators
from tests.registry.harms import Harm, absent, header, raw, setting, tensor, text
from tests.registry.small_translators import VOCABULARY, WIDTH

LANGUAGES = {
    "marian": (["en"], ["pt"]),
    "marian_many": (["en"], ["fra", "spa"]),
    "m2m_100": (["de", "en", "fr"], ["de", "en", "fr"]),
    "nllb": (["eng_Latn", "fra_Latn", "zho_Hans"], ["eng_Latn", "fra_Latn", "zho_Hans"]),
    "t5": (["en"], ["de"]),
    "student": (["en"], ["pt"]),
}
CONTEXT = {"t5": 512, "student": 256}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.mark.parametrize("family", list(LANGUAGES))
def test_a_translator_is_told_compared_and_stored(
    store: ArtifactStore, tmp_path: Path, family: str
) -> None:
    folder = small_translators.complete(tmp_path / "m", family)
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    student = family == "student"
    assert recognise(folder).kind == ("marian_student" if student else "translator")
    digest, manifest = import_model(folder, store)
    assert manifest.task == "translate"
    assert manifest.format == ("openvino-translator" if student else "ctranslate2")
    assert (manifest.source_languages, manifest.target_languages) == LANGUAGES[family]
    assert manifest.context_tokens == CONTEXT.get(family, 40)
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 0.3  # eight bits of random weights
    assert manifest.verification.samples == 8
    names = {path.name for path in store.open(digest).iterdir()}
    assert names >= {"manifest.json", "encoder.xml" if student else "model.bin"}
    assert names.isdisjoint({"modeling_evil.py", "model.safetensors"})
    assert import_model(folder, store)[0] == digest


# --- what harms a folder -----------------------------------------------------------------


def _same_bytes(entries: dict[str, Any]) -> None:
    """A hundred layers from the bytes of one, as a small file would fill memory."""
    for name in list(entries):
        if name.endswith("fc1.weight"):
            entries[name]["data_offsets"] = entries["model.encoder.layers.0.fc1.weight"][
                "data_offsets"
            ]


WEIGHTS = "model.safetensors"
ATTENTION = "model.encoder.layers.0.self_attn."
CROSS = "model.decoder.layers.1.encoder_attn."
VOCAB = json.dumps({"<unk>": 1, "</s>": 0, "w": VOCABULARY})

HARMS: list[tuple[str, str, Harm, type[OpenMaaSError], str]] = [
    # name, family, what is done, the error, what it says
    ("cut", "marian", raw(WEIGHTS, lambda old: old[:-100]), ArtifactRefused, "damaged"),
    ("cut in its header", "t5", raw(WEIGHTS, lambda old: old[:50]), ArtifactRefused, "header"),
    ("empty", "marian", raw(WEIGHTS, lambda old: b""), ArtifactRefused, "empty"),
    (
        "long header",
        "t5",
        raw(WEIGHTS, lambda old: b"\xff" * 8 + old[8:]),
        ArtifactRefused,
        "header",
    ),
    ("same bytes twice", "marian", header(_same_bytes), ArtifactRefused, "overlaps"),
    (
        "shape of other bytes",
        "t5",
        header(lambda entries: entries["shared.weight"].update(shape=[1 << 40, 1 << 40])),
        ArtifactRefused,
        "another size",
    ),
    (
        "whole numbers",
        "marian",
        header(lambda entries: entries["model.shared.weight"].update(dtype="I32")),
        ConversionFailed,
        "I32",
    ),
    (
        "no numbers",
        "m2m_100",
        tensor(ATTENTION + "q_proj.bias", lambda old: old * np.nan),
        ArtifactRefused,
        "finite",
    ),
    ("endless", "t5", tensor("shared.weight", lambda old: old + np.inf), ArtifactRefused, "finite"),
    (
        "too large to add",
        "marian",
        tensor("model.shared.weight", lambda old: old * 1e38),
        ConversionFailed,
        "differ",
    ),
    (
        "a missing tensor",
        "marian",
        tensor(CROSS + "v_proj.weight", None),
        ArtifactRefused,
        "encoder_attn.v_proj",
    ),
    (
        "a tensor more",
        "marian",
        tensor("model.adapter.weight", lambda old: old),
        ConversionFailed,
        "adapter",
    ),
    (
        "a narrow matrix",
        "marian",
        tensor(CROSS + "k_proj.weight", lambda old: old[:, :8]),
        ArtifactRefused,
        "cross_key",
    ),
    (
        "a short bias",
        "m2m_100",
        tensor(ATTENTION + "k_proj.bias", lambda old: old[:1]),
        ArtifactRefused,
        "key, bias",
    ),
    (
        "a short norm",
        "marian",
        tensor(ATTENTION[:-1] + "_layer_norm.weight", lambda old: old[:1]),
        ArtifactRefused,
        "attention_norm",
    ),
    (
        "a flat matrix",
        "t5",
        tensor("shared.weight", lambda old: old.reshape(-1)),
        ArtifactRefused,
        "shared",
    ),
    (
        "a short last norm",
        "t5",
        tensor("decoder.final_layer_norm.weight", lambda old: old[:1]),
        ArtifactRefused,
        "last norm",
    ),
    (
        "few buckets",
        "t5",
        tensor(
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            lambda old: old[:2],
        ),
        ArtifactRefused,
        "buckets",
    ),
    ("fewer layers said", "marian", setting(encoder_layers=1), ConversionFailed, "layers.1"),
    ("fewer layers said", "t5", setting(num_layers=1), ConversionFailed, "block.1"),
    ("more layers said", "m2m_100", setting(decoder_layers=3), ArtifactRefused, "layers.2"),
    ("huge depth", "marian", setting(encoder_layers=1 << 40), ArtifactRefused, "encoder_layers"),
    ("no layers", "t5", setting(num_layers=0), ArtifactRefused, "num_layers"),
    ("negative width", "marian", setting(d_model=-16), ArtifactRefused, "d_model"),
    ("another width", "marian", setting(d_model=32), ArtifactRefused, "model.shared"),
    ("another width", "t5", setting(d_model=8, d_kv=4), ArtifactRefused, "shared"),
    ("text for a width", "m2m_100", setting(d_model="16"), ArtifactRefused, "d_model"),
    (
        "heads that do not divide",
        "marian",
        setting(encoder_attention_heads=3),
        ArtifactRefused,
        "heads",
    ),
    ("no heads", "t5", setting(num_heads=0), ArtifactRefused, "num_heads"),
    (
        "positions that fill memory",
        "marian",
        setting(d_model=1 << 14, max_position_embeddings=1 << 14),
        ArtifactRefused,
        "too large",
    ),
    ("no positions", "marian", setting(max_position_embeddings=0), ArtifactRefused, "max_position"),
    (
        "another vocabulary",
        "m2m_100",
        setting(vocab_size=VOCABULARY + 1),
        ConversionFailed,
        "vocabular",
    ),
    (
        "an end beyond the words",
        "t5",
        setting(eos_token_id=VOCABULARY),
        ArtifactRefused,
        "eos_token_id",
    ),
    (
        "padding for an end",
        "marian",
        setting(eos_token_id=VOCABULARY - 1),
        ArtifactRefused,
        "same token",
    ),
    (
        "an unknown activation",
        "marian",
        setting(activation_function=["exec"]),
        ConversionFailed,
        "activation",
    ),
    (
        "short distances",
        "t5",
        setting(relative_attention_max_distance=2),
        ArtifactRefused,
        "buckets",
    ),
    (
        "settings that are a list",
        "t5",
        text("config.json", "[1]"),
        ArtifactRefused,
        "no named arch",
    ),
    ("deep settings", "t5", text("config.json", "[" * 100_000), ArtifactRefused, "damaged"),
    ("no settings", "marian", absent("config.json"), ArtifactRefused, "no model that is known"),
    ("no tokenizer", "t5", absent("spiece.model"), ConversionFailed, "tokenizer"),
    ("one side's tokenizer", "marian", absent("target.spm"), ArtifactRefused, "target.spm"),
    ("no table of pieces", "marian", absent("vocab.json"), ConversionFailed, "vocab.json"),
    ("no tokenizer", "nllb", absent("tokenizer.json"), ConversionFailed, "tokenizer"),
    (
        "a damaged tokenizer",
        "nllb",
        text("tokenizer.json", "{}"),
        ArtifactRefused,
        "tokenizer.json",
    ),
    (
        "a damaged tokenizer",
        "marian",
        raw("target.spm", lambda old: old[:-9]),
        ArtifactRefused,
        "target.spm",
    ),
    ("a damaged tokenizer", "t5", text("spiece.model", "noise"), ArtifactRefused, "cannot be read"),
    (
        "more pieces than words",
        "t5",
        tensor("shared.weight", lambda old: old[:20]),
        ArtifactRefused,
        "more pieces",
    ),
    ("ids beyond the words", "marian", text("vocab.json", VOCAB), ArtifactRefused, "ids beyond"),
    ("ids that are none", "marian", text("vocab.json", '{"<unk>": "1"}'), ArtifactRefused, "table"),
    ("pieces without unknown", "marian", text("vocab.json", '{"a": 1}'), ArtifactRefused, "<unk>"),
    (
        "no languages",
        "m2m_100",
        text("special_tokens_map.json", "{}"),
        ConversionFailed,
        "languages",
    ),
    ("odd languages", "m2m_100", text("special_tokens_map.json", "[]"), ArtifactRefused, "object"),
    (
        "languages beyond the words",
        "m2m_100",
        text(
            "special_tokens_map.json",
            json.dumps(
                {"additional_special_tokens": [f"__{a}{b}__" for a in "abcdef" for b in "abcdef"]}
            ),
        ),
        ArtifactRefused,
        "languages",
    ),
    (
        "a pickle beside it",
        "marian",
        raw("generation_config.json", lambda _: pickle.dumps({"a": 1})),
        ArtifactRefused,
        "pickle",
    ),
    (
        "a pickle for weights",
        "t5",
        raw("more.safetensors", lambda _: pickle.dumps([1])),
        ArtifactRefused,
        "pickle",
    ),
]


@pytest.mark.parametrize(
    ("family", "harm", "error", "why"),
    [pytest.param(*rest, id=f"{rest[0]}: {name}") for name, *rest in HARMS],
)
def test_harmed_translators_are_refused_and_why(
    store: ArtifactStore,
    tmp_path: Path,
    family: str,
    harm: Harm,
    error: type[OpenMaaSError],
    why: str,
) -> None:
    folder = small_translators.complete(tmp_path / "m", family)
    harm(folder)
    with pytest.raises(error, match=why) as caught:
        import_model(folder, store)
    # Nothing came this far by a library's accident.
    assert "Error:" not in caught.value.message
    assert "died" not in caught.value.message
    assert store.digests() == []


# --- the comparison ----------------------------------------------------------------------


@pytest.mark.parametrize("family", ["marian", "m2m_100", "t5"])
def test_the_comparison_finds_one_wrong_weight(tmp_path: Path, family: str) -> None:
    """What an engine computes of other weights than the file's is no translation of it."""
    folder, out = small_translators.write(tmp_path / "m", family), tmp_path / "out"
    out.mkdir()
    model = translator_weights.read(folder)
    translator_spec.save(model, out, None)
    assert translator._compare(model, out)[0] < translator.EXACT
    model.decoder.layers[1]["cross_query"][0][0] += 1.0
    assert translator._compare(model, out)[0] > translator.EXACT


def test_positions_are_as_wide_as_the_model(tmp_path: Path) -> None:
    folder = small_translators.write(tmp_path / "m", "m2m_100")
    positions = translator_weights.read(folder).encoder.positions
    assert positions is not None
    assert positions.shape == (40, WIDTH)

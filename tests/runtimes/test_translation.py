"""Translators on both engines: languages by name, limits, batches, ends, tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openmaas.errors import ArtifactRefused, ConfigurationError, InvalidRequest, PayloadTooLarge
from openmaas.inference import Embed, Tokenize, Tokenized, Translate, Translated
from openmaas.registry.importers.marian_file import MarianFile
from openmaas.runtimes import ctranslate2_translation, open_runtime, openvino_translation
from openmaas.runtimes.measured import REMEMBERED
from openmaas.runtimes.translation_tokens import language
from tests.registry import small_translators
from tests.registry.harms import setting, tensor

RUNTIMES = {
    "marian": "ctranslate2_translation",
    "marian_many": "ctranslate2_translation",
    "m2m_100": "ctranslate2_translation",
    "nllb": "ctranslate2_translation",
    "t5": "ctranslate2_translation",
    "student": "openvino_translation",
}
PAIRS = {
    "marian": ("en", "pt"),
    "marian_many": ("en", "fra"),
    "m2m_100": ("en", "fr"),
    "nllb": ("eng_Latn", "fra_Latn"),
    "t5": ("en", "de"),
    "student": ("en", "pt"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An imported artifact of each family, as the registry would store it."""
    root = tmp_path_factory.mktemp("translators")
    return {name: small_translators.artifact(root / name, name) for name in RUNTIMES}


@pytest.fixture(scope="module")
def runtimes(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: open_runtime(RUNTIMES[name], folders[name], exact(name)) for name in RUNTIMES}


def exact(family: str) -> dict[str, Any]:
    """In bfloat16 a batch's size can turn the near ties of random weights."""
    return {"precision": "f32"} if family == "student" else {}


@pytest.fixture(params=list(RUNTIMES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def asked(family: str, *texts: str) -> Translate:
    source, target = PAIRS[family]
    return Translate(inputs=list(texts), source=source, target=target)


def answer(runtime: Any, request: Translate) -> Translated:
    (found,) = runtime.run([request])
    assert isinstance(found, Translated)
    return found


def test_says_what_it_is(runtimes: dict[str, Any], family: str) -> None:
    info = runtimes[family].info
    assert (info.task, info.runtime) == ("translate", RUNTIMES[family])
    source, target = PAIRS[family]
    assert source in info.source_languages
    assert target in info.target_languages
    assert info.context_tokens >= 40


def test_one_answer_an_input_with_what_it_cost(runtimes: dict[str, Any], family: str) -> None:
    runtime = runtimes[family]
    request = asked(family, "w1 w2 w3", "w4")
    size = runtime.size(request)
    found = answer(runtime, request)
    assert len(found.outputs) == len(found.logprobs) == 2
    assert all(one is not None and one < 0 for one in found.logprobs)
    assert found.usage.input_tokens == size
    assert found.usage.output_tokens >= 2
    alone = [answer(runtime, asked(family, text)) for text in ("w1 w2 w3", "w4")]
    assert [one.outputs[0] for one in alone] == found.outputs


def test_a_sentence_is_translated_beside_others_as_alone(
    runtimes: dict[str, Any], family: str
) -> None:
    runtime = runtimes[family]
    texts = [" ".join(f"w{(at * k) % 30}" for k in range(1, 2 + at % 9)) for at in range(24)]
    requests = [asked(family, *texts[at : at + 1 + at % 3]) for at in range(0, 20, 2)]
    together = runtime.run(requests)
    for request, found in zip(requests, together, strict=True):
        single = answer(runtime, request)
        assert found.outputs == single.outputs
        assert found.logprobs == pytest.approx(single.logprobs, abs=1e-3)
        assert found.usage == single.usage


def test_an_unknown_language_is_refused_by_name(runtimes: dict[str, Any], family: str) -> None:
    source, target = PAIRS[family]
    with pytest.raises(InvalidRequest, match="no source language 'xx'") as caught:
        runtimes[family].size(Translate(inputs=["w1"], source="xx", target=target))
    assert caught.value.param == "source"
    with pytest.raises(InvalidRequest, match=f"no target language.*{target}") as caught:
        runtimes[family].size(Translate(inputs=["w1"], source=source, target="xx"))
    assert caught.value.param == "target"


def test_none_stands_for_the_only_language(runtimes: dict[str, Any]) -> None:
    for family in ("marian", "student", "t5"):
        named = answer(runtimes[family], asked(family, "w1 w2"))
        assert answer(runtimes[family], Translate(inputs=["w1 w2"])) == named
    for family, param in (("m2m_100", "source"), ("marian_many", "target")):
        with pytest.raises(InvalidRequest, match=f"needs a {param} language") as caught:
            runtimes[family].size(Translate(inputs=["w1"]))
        assert caught.value.param == param


def test_refusals_list_no_more_than_fits_a_message() -> None:
    known = [f"l{number}" for number in range(200)]
    with pytest.raises(InvalidRequest, match=r"l19 … \(200 in all\)$") as caught:
        language("xx" * 500, known, "source")
    assert len(caught.value.message) < 250
    with pytest.raises(InvalidRequest, match="leave it out"):
        language("en", [], "source")


def test_languages_share_a_batch_and_change_the_answer(runtimes: dict[str, Any]) -> None:
    runtime = runtimes["m2m_100"]
    into = [Translate(inputs=["w1 w2 w3"], source="en", target=one) for one in ("fr", "de")]
    found = runtime.run(into)
    assert found == [answer(runtime, one) for one in into]
    assert found[0].logprobs != found[1].logprobs
    other = answer(runtime, Translate(inputs=["w1 w2 w3"], source="de", target="fr"))
    assert other.logprobs != found[0].logprobs


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_empty_texts_are_refused(runtimes: dict[str, Any], family: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match="input 1 is empty"):
        runtimes[family].size(asked(family, "w1", text))
    with pytest.raises(InvalidRequest, match="nothing to translate"):
        runtimes[family].size(asked(family))


def test_length_is_bounded(runtimes: dict[str, Any], family: str) -> None:
    runtime = runtimes[family]
    context = runtime.info.context_tokens
    empty = runtime.size(asked(family, "w1")) - 1
    full = " ".join(["w1"] * (context - empty))
    assert runtime.size(asked(family, full)) == context
    with pytest.raises(InvalidRequest, match=f"has {context + 1} tokens, the limit is {context}"):
        runtime.size(asked(family, full + " w1"))
    with pytest.raises(PayloadTooLarge, match="characters"):
        runtime.size(asked(family, "w1" + " " * 100_000))
    found = answer(runtime, asked(family, full))
    assert found.usage.output_tokens <= 512


def test_special_tokens_in_a_text_are_text(runtimes: dict[str, Any], family: str) -> None:
    runtime = runtimes[family]
    plain = answer(runtime, asked(family, "w1 w2"))
    written = answer(runtime, asked(family, "w1 </s> w2"))
    assert written.usage.input_tokens >= plain.usage.input_tokens
    assert "</s>" not in "".join(written.outputs)


def test_other_tasks_and_options_are_refused(
    runtimes: dict[str, Any], folders: dict[str, Path], family: str
) -> None:
    with pytest.raises(InvalidRequest, match="translates only"):
        runtimes[family].size(Embed(inputs=["w1"]))
    for options in ({"beam": 1}, {"threads": 0}, {"beam_size": 17}, {"beam_size": True}):
        with pytest.raises(ConfigurationError):
            open_runtime(RUNTIMES[family], folders[family], options)


def test_tokens_are_the_texts_own_bytes(runtimes: dict[str, Any], family: str) -> None:
    request = Tokenize(inputs=["w1 w2", "w3"])
    (found,) = runtimes[family].run([request])
    assert isinstance(found, Tokenized)
    assert [b"".join(one for _, one in text).replace(b" ", b"") for text in found.outputs] == [
        b"w1w2",
        b"w3",
    ]
    both = runtimes[family].run([request, asked(family, "w1")])
    assert both[0] == found


def test_what_was_measured_and_given_up_leaves_little(runtimes: dict[str, Any]) -> None:
    runtime = runtimes["marian"]
    for _ in range(REMEMBERED + 10):
        runtime.size(asked("marian", "w1"))
    assert len(runtime._sentences) <= REMEMBERED


def test_beams_find_what_is_likelier(folders: dict[str, Path], runtimes: dict[str, Any]) -> None:
    wide = open_runtime(RUNTIMES["marian"], folders["marian"], {"beam_size": 8})
    narrow = open_runtime(RUNTIMES["marian"], folders["marian"], {"beam_size": 1})
    texts = [f"w{number} w{number + 1}" for number in range(12)]
    sums = [
        sum(one or 0 for one in answer(runtime, asked("marian", *texts)).logprobs)
        for runtime in (wide, narrow)
    ]
    assert sums[0] > sums[1]


def endless(folder: Path, family: str) -> Path:
    """An artifact that would never end an answer by itself."""
    source = small_translators.complete(folder / "source", family)
    if family == "student":
        path = source / "model.enpt.intgemm.alphas.bin"
        name = "decoder_ff_logit_out_b"
        bias = MarianFile(path)(name, 1, small_translators.VOCABULARY).values
        never = bias.copy()
        never[0, 0] = -1e4
        path.write_bytes(path.read_bytes().replace(bias.tobytes(), never.tobytes()))
    else:
        setting(max_position_embeddings=600)(source)
        bias = np.zeros((1, small_translators.VOCABULARY), np.float32)
        end = json.loads((source / "config.json").read_text())["eos_token_id"]
        bias[0, end] = -1e4
        tensor("final_logits_bias", lambda _: bias)(source)
    return small_translators.imported(source, folder / "out", family)


@pytest.mark.parametrize("family", ["marian", "nllb", "student"])
def test_what_loops_without_end_stops_by_the_length_of_its_source(
    tmp_path: Path, family: str
) -> None:
    runtime = open_runtime(RUNTIMES[family], endless(tmp_path, family), exact(family))
    texts = [" ".join(["w1"] * count) for count in (1, 20, 60, 250)]
    alone = [answer(runtime, asked(family, text)) for text in texts]
    for found in alone:
        written, read = found.usage.output_tokens, found.usage.input_tokens
        most = next(most for source, most in ctranslate2_translation.LENGTHS if read <= source)
        assert written == (openvino_translation.longest(read) if family == "student" else most)
    # A long answer beside it makes no short source's answer longer.
    together = answer(runtime, asked(family, *texts))
    assert together.outputs == [one.outputs[0] for one in alone]
    assert together.usage.output_tokens == sum(one.usage.output_tokens for one in alone)


@pytest.mark.parametrize("name", ["translator.json", "model.bin", "source.spm", "manifest.json"])
def test_a_damaged_artifact_is_refused(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(folders["marian"], tmp_path / "copy"))
    (folder / name).write_bytes(b"{")
    with pytest.raises(ArtifactRefused):
        ctranslate2_translation.open(folder, {})
    (folder / name).unlink()
    with pytest.raises(ArtifactRefused):
        ctranslate2_translation.open(folder, {})


@pytest.mark.parametrize("name", ["encoder.xml", "decoder.xml", "source.spm"])
def test_a_damaged_student_is_refused(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(folders["student"], tmp_path / "copy"))
    (folder / name).write_bytes(b"{")
    with pytest.raises(ArtifactRefused):
        openvino_translation.open(folder, {})


def test_the_manifest_gives_the_context(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["student"], tmp_path / "copy"))
    (folder / "manifest.json").write_text(json.dumps({"context_tokens": "many"}))
    with pytest.raises(ArtifactRefused, match="context_tokens"):
        openvino_translation.open(folder, {})

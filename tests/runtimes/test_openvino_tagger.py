"""Token classifiers in OpenVINO: spans in the caller's characters, and no text too long to read."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmaas.errors import ArtifactRefused, InvalidRequest
from openmaas.inference import Tag, Tagged, Tokenize, Tokenized
from openmaas.runtimes import openvino_tagger
from openmaas.runtimes.openvino_tagger import OVERLAP, OpenVinoTagger, windows
from tests.runtimes.small_networks import CONTEXT, TAGS, WORDS, embed, tagger

ROOM = CONTEXT - 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tagger(tmp_path_factory.mktemp("tagger"))


@pytest.fixture(scope="module", params=[True, False], ids=["masked", "without a mask"])
def runtime(request: Any, tmp_path_factory: pytest.TempPathFactory) -> OpenVinoTagger:
    return openvino_tagger.open(tagger(tmp_path_factory.mktemp("t"), masked=request.param), {})


def found(runtime: OpenVinoTagger, *texts: str, **how: Any) -> list[list[str]]:
    (answer,) = runtime.run([Tag(inputs=[*texts], **how)])
    assert isinstance(answer, Tagged)
    return [
        [text[span.start : span.end] for span in spans]
        for text, spans in zip(texts, answer.outputs, strict=True)
    ]


def test_says_what_it_is(runtime: OpenVinoTagger) -> None:
    assert (runtime.info.task, runtime.info.runtime) == ("tag", "openvino_tagger")
    assert (runtime.info.context_tokens, runtime.info.labels) == (CONTEXT, TAGS)


def test_spans_are_characters_of_the_callers_text(runtime: OpenVinoTagger) -> None:
    assert found(runtime, "w2 w1  w11 w4", "w2", "🙂 w3,\tw13\u0301 مرحبا w5") == [
        ["w1  w11"],
        [],
        ["w3", "w5"],  # what the tokenizer does not know is unknown, not odd
    ]
    (answer,) = runtime.run([Tag(inputs=["w2 w1 w11"])])
    assert isinstance(answer, Tagged)
    ((span,),) = answer.outputs
    assert (span.start, span.end, span.label) == (3, 9, "ODD")
    assert span.score == pytest.approx(2.71828**4 / (2.71828**4 + 2), abs=1e-4)
    assert answer.usage.input_tokens == 3 + 2


def test_each_token_has_its_own_span_where_that_is_asked(runtime: OpenVinoTagger) -> None:
    (answer,) = runtime.run([Tag(inputs=["w1 w11"], aggregation="none")])
    assert isinstance(answer, Tagged)
    assert [(span.start, span.label) for span in answer.outputs[0]] == [(0, "B-ODD"), (3, "I-ODD")]


def test_a_batch_says_what_each_text_says_alone(runtime: OpenVinoTagger) -> None:
    chance = random.Random(3)
    texts = [
        " ".join(chance.choices(WORDS[4:], k=length)) for length in (1, 14, 3, 90, 15, 7, 200, 1)
    ]
    together = runtime.run([Tag(inputs=texts[:5]), Tag(inputs=texts[5:])])
    spans = [one for answer in together if isinstance(answer, Tagged) for one in answer.outputs]
    for text, mine in zip(texts, spans, strict=True):
        (alone,) = runtime.run([Tag(inputs=[text])])
        assert isinstance(alone, Tagged)
        assert alone.outputs == [mine]


@pytest.mark.parametrize("words", [ROOM - 1, ROOM, ROOM + 1, 2 * ROOM, 1000])
def test_nothing_goes_unread_beyond_the_context(runtime: OpenVinoTagger, words: int) -> None:
    """An odd word at every place of a long text, one at a time, and everywhere."""
    text = " ".join(["w1"] * words)
    assert found(runtime, text) == [["w1"] * words]
    for place in {0, 1, ROOM - 1, ROOM, words // 2, words - 2, words - 1}:
        if place < words:
            rest = ["w2"] * words
            rest[place] = "w7"
            assert found(runtime, " ".join(rest)) == [["w7"]]


def test_a_span_across_windows_is_one(runtime: OpenVinoTagger) -> None:
    text = " ".join(["w1", *["w11"] * 500])
    assert found(runtime, text) == [[text]]


def test_a_long_texts_tokens_are_billed_once(runtime: OpenVinoTagger) -> None:
    asked = Tag(inputs=[" ".join(["w1"] * 100), "w1"])
    read = sum(min(ROOM, 100 - start) + 2 for start, _ in windows(100, ROOM)) + 3
    assert runtime.size(asked) == read > 100 + 2 + 3
    (answer,) = runtime.run([asked])
    assert isinstance(answer, Tagged)
    assert answer.usage.input_tokens == 100 + 2 + 3


def test_truncate_reads_the_context_alone(runtime: OpenVinoTagger, folder: Path) -> None:
    text = " ".join(["w1"] * 100)
    assert found(runtime, text, truncate=True) == [["w1"] * ROOM]
    assert found(openvino_tagger.open(folder, {"truncate": True}), text) == [["w1"] * ROOM]


@given(tokens=st.integers(0, 3000), room=st.integers(8, 300))
@settings(max_examples=300, deadline=None)
def test_windows_believe_each_token_once_far_from_a_cut(tokens: int, room: int) -> None:
    kept = []
    for start, (first, end) in windows(tokens, room):
        last = min(start + room, tokens)
        assert start <= first < end <= last
        margin = room // OVERLAP // 2
        assert first == 0 or first - start >= margin
        assert end == tokens or last - end >= margin
        kept += range(first, end)
    assert kept == list(range(tokens))


def test_splits_texts_into_tokens_beside_spans(runtime: OpenVinoTagger) -> None:
    split, tagged = runtime.run([Tokenize(inputs=["w1 w2"]), Tag(inputs=["w1 w2"])])
    assert isinstance(split, Tokenized)
    assert split.outputs == [[(2, b""), (5, b"w1"), (6, b"w2"), (3, b"")]]
    assert isinstance(tagged, Tagged)
    assert len(tagged.outputs[0]) == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [(Tag(inputs=[]), "nothing to read"), (embed("w1"), "finds spans in texts only")],
)
def test_refuses_what_it_cannot_tag(runtime: OpenVinoTagger, asked: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        runtime.size(asked)


def test_texts_without_a_word_have_no_spans(runtime: OpenVinoTagger) -> None:
    assert found(runtime, "", " \n") == [[], []]


@pytest.mark.parametrize("labels", [["O"], [1, 2, 3], "abc"])
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: Any) -> None:
    folder = tagger(tmp_path / "t")
    manifest = json.loads((folder / "manifest.json").read_text()) | {"labels": labels}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactRefused, match="label"):
        openvino_tagger.open(folder, {})


def test_a_classifier_of_texts_is_none_of_tokens(tmp_path: Path) -> None:
    from tests.runtimes.small_networks import classifier

    with pytest.raises(ArtifactRefused, match="a token"):
        openvino_tagger.open(classifier(tmp_path / "c"), {})

"""Makes tiny Keras networks on JAX, as a trainer leaves them: ``… FOLDER NAME …``.

Each sub-folder is an export, with the network's own answers, computed by JAX.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
sys.modules["tensorflow"] = None  # type: ignore[assignment]  # four seconds, to no use

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers as L  # noqa: E402, N812
from keras.src.utils import module_utils  # noqa: E402

assert not module_utils.tensorflow.available  # which Keras asks only once
del sys.modules["tensorflow"]
place = Path(sys.argv[1])
rng = np.random.default_rng(1)
WORDS = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", *(f"w{number}" for number in range(26))]


def stirred(model: Any, size: float = 0.3) -> Any:
    """With weights of a trained network's size everywhere, moving averages too."""
    for variable in model.weights:
        if variable.name not in ("seed_generator_state", "mean", "variance", "count"):
            noise = rng.normal(0, size, variable.shape).astype(variable.dtype)
            variable.assign(noise**2 + 0.5 if "variance" in variable.path else noise)
    return model


def saved(name: str, model: Any, file: str = "model.keras") -> Path:
    (place / name).mkdir(exist_ok=True)
    model.save(place / name / file)
    return place / name


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def network(name: str, model: Any, **inputs: Any) -> None:
    given = list(inputs.values())
    outputs = model.predict_on_batch(given if len(given) > 1 else given[0])
    answers = outputs if isinstance(outputs, list) else [outputs]
    names = ["outputs"] if len(answers) == 1 else [f"outputs_{at}" for at in range(len(answers))]
    folder = saved(name, model)
    arrays = dict(zip(names, map(np.asarray, answers), strict=True))
    np.savez(folder / "rows.npz", **inputs, **arrays)


def tokens(length: int, rows: int = 6, top: int = 20) -> Any:
    made = rng.integers(1, top, (rows, length))
    for row in range(1, rows):
        made[row, length - row :] = 0  # padding, of all lengths
    return made.astype("int32")


def networks() -> None:
    digits = rng.normal(size=(64, 8)).astype("float32")
    dense = keras.Sequential(
        [
            L.Input((8,), name="x"),
            L.Dense(16, "relu"),
            L.BatchNormalization(),
            L.Dropout(0.3),
            L.Dense(3, "softmax", name="classes"),
        ]
    )
    dense.compile("adam", "sparse_categorical_crossentropy")
    dense.fit(digits, (digits.sum(1) > 0).astype("int32"), epochs=3, verbose=0)
    network("dense", dense, x=digits)
    write(place / "dense" / "labels.json", ["low", "high", "never"])

    i = L.Input((12, 12, 1), name="image")
    x = L.Rescaling(1 / 16)(i)
    x = L.MaxPooling2D()(L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(x)))
    x = L.Dropout(0.5)(L.Flatten()(L.AveragePooling2D(2)(L.Conv2D(8, 3, padding="same")(x))))
    network(
        "cnn",
        stirred(keras.Model(i, L.Dense(10, "softmax")(x))),
        image=rng.uniform(0, 16, (5, 12, 12, 1)).astype("float32"),
    )

    ids = L.Input((9,), dtype="int32", name="ids")
    words = L.Embedding(20, 6, mask_zero=True)
    x = L.Bidirectional(L.LSTM(5))(words(ids))
    network("lstm", stirred(keras.Model(ids, L.Dense(2)(x))), ids=tokens(9))
    x = L.GRU(4, return_sequences=True)(L.LSTM(5, return_sequences=True)(words(ids)))
    network("stacked", stirred(keras.Model(ids, L.Dense(2)(x))), ids=tokens(9))

    x = words(ids)
    x = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 3, dropout=0.1)(x, x)]))
    x = L.Add()([x, L.Dense(6)(L.Dense(12, "gelu")(x))])
    x = L.GlobalAveragePooling1D()(x)
    network("attention", stirred(keras.Model(ids, L.Dense(2)(x))), ids=tokens(9))

    series = L.Input((7, 3), name="series")
    level = L.Normalization()
    level.adapt(rng.normal(3, 2, (50, 7, 3)))
    x = L.Conv1D(4, 3, activation="relu")(level(series))
    both = L.Concatenate()([L.GlobalMaxPooling1D()(x), L.GlobalMaxPooling1D()(words(ids))])
    network(
        "two",
        keras.Model(
            [ids, series], [L.Dense(2, name="a")(both), L.Dense(1, "sigmoid", name="b")(both)]
        ),
        ids=tokens(9),
        series=rng.normal(size=(6, 7, 3)).astype("float32"),
    )


def tokenizer(end: bool) -> dict[str, Any]:
    special = [
        {
            "id": at,
            "content": WORDS[at],
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for at in (0, 2, 3)
    ]
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[EOS]", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"[EOS]": {"id": "[EOS]", "ids": [3], "tokens": ["[EOS]"]}},
    }
    return {
        "version": "1.0",
        "added_tokens": special,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": template if end else None,
        "model": {
            "type": "WordLevel",
            "unk_token": "[UNK]",
            "vocab": {word: number for number, word in enumerate(WORDS)},
        },
    }


def sentences(count: int, most: int) -> list[list[str]]:
    return [[WORDS[4 + one] for one in rng.integers(0, 26, 1 + at % most)] for at in range(count)]


def classifier() -> None:
    i = L.Input((10,), dtype="int32", name="ids")
    x = L.Bidirectional(L.GRU(4))(L.Embedding(30, 6, mask_zero=True)(i))
    model = stirred(keras.Model(i, L.Dense(3, "softmax")(x)))
    folder = saved("classifier", model)
    texts = sentences(12, 10)
    rows = np.zeros((12, 10), "int32")
    for row, words in zip(rows, texts, strict=True):
        row[: len(words)] = [WORDS.index(word) for word in words]
    answers = model.predict_on_batch(rows)
    write(folder / "tokenizer.json", tokenizer(end=False))
    write(folder / "config.json", {"id2label": {"0": "a", "1": "b", "2": "c"}})
    write(
        folder / "rows.json",
        [
            {"text": " ".join(words), "probabilities": row.tolist()}
            for words, row in zip(texts, answers, strict=True)
        ],
    )


def tabular() -> None:
    values = ["Oslo", "Rome", "Århus"]
    age, town, sun = (
        L.Input((1,), name=name, dtype=kind)
        for name, kind in (("age", "float32"), ("column_1", "int32"), ("sun hours", "float32"))
    )
    level = L.Normalization()
    level.adapt(rng.normal(40, 20, (50, 1)))
    x = L.Concatenate()([level(age), L.Flatten()(L.Embedding(4, 2)(town)), sun])
    x = L.Dense(8, "relu")(x)
    ages, suns = (rng.normal(at, 2, 8).astype("float32").tolist() for at in (40, 5))
    towns = [None, "Rome", "", "Paris", "Århus", "Oslo", "Rome", "Oslo"]
    suns[2] = None
    places = [values.index(one) + 1 if one in values else 0 for one in towns]
    given = [
        np.array(column)[:, None].astype(kind)
        for column, kind in (
            (ages, "float32"),
            (places, "int32"),
            ([5.5 if one is None else one for one in suns], "float32"),
        )
    ]
    known = [
        {"name": "age", "kind": "number"},
        {"name": "town", "kind": "category", "values": values, "input": "column_1"},
        {"name": "sun hours", "kind": "number", "missing": 5.5},
    ]
    for name, head, labels in (
        ("tabular", L.Dense(3, "softmax"), ["a", "b", "c"]),
        ("tabular_binary", L.Dense(1, "sigmoid"), ["no", "yes"]),
        ("tabular_number", L.Dense(1), []),
    ):
        model = stirred(keras.Model([age, town, sun], head(x)))
        folder = saved(name, model)
        answers = model.predict_on_batch(given)
        write(folder / "columns.json", known)
        if labels:
            write(folder / "labels.json", labels)
        write(
            folder / "rows.json",
            [
                {"row": {"age": a, "town": t, "sun hours": s}, "outputs": row.tolist()}
                for a, t, s, row in zip(ages, towns, suns, answers, strict=True)
            ],
        )


def seq2seq(name: str, encoder: Any, decoder: Any, state: list[str], task: str) -> None:
    length, most = 8, 10
    folder = saved(name, encoder, "encoder.keras")
    saved(name, decoder, "decoder.keras")
    write(folder / "source.json", tokenizer(end=True))
    write(folder / "target.json", tokenizer(end=False))
    languages = ("de", "en") if task == "translate" else ("", "")
    write(
        folder / "config.json",
        {
            "task": task,
            "source_language": languages[0],
            "target_language": languages[1],
            "source_length": length,
            "target_length": most,
            "padding_id": 0,
            "begin_id": 2,
            "end_id": 3,
            "unknown_id": 1,
            "state": state,
            "architecture": name,
        },
    )
    rows = []
    for words in sentences(5, 7):
        ids = np.zeros((1, length), "int32")
        ids[0, : len(words) + 1] = [*(WORDS.index(word) for word in words), 3]
        read = encoder.predict_on_batch(ids)
        given = dict(zip(["memory", *state], read if state else [read], strict=True))
        answer = [2]
        while len(answer) <= most:
            given["source"] = ids
            if state:
                given["token"] = np.array([answer[-1:]], "int32")
            else:
                given["tokens"] = np.array([answer + [0] * (most - len(answer))], "int32")
                given["position"] = np.array([[len(answer) - 1]], "int32")
            made = decoder.predict_on_batch([given[one.name] for one in decoder.inputs])
            scores = made[0] if state else made
            answer.append(int(np.argmax(np.asarray(scores)[0])))
            if answer[-1] == 3:
                break
            given |= dict(zip(state, made[1:], strict=True)) if state else {}
        written = [WORDS[one] for one in answer[1:] if one not in (0, 2, 3)]
        rows.append({"text": " ".join(words), "output": " ".join(written)})
    write(folder / "rows.json", rows)


def rnn() -> None:
    source = L.Input((8,), dtype="int32", name="source")
    words = L.Embedding(30, 6, mask_zero=True, name="words")
    memory, hidden, cell = L.LSTM(6, return_sequences=True, return_state=True)(words(source))
    encoder = stirred(keras.Model(source, [memory, hidden, cell]), 1.5)
    ids = L.Input((8,), dtype="int32", name="source")
    kept, token = L.Input((8, 6), name="memory"), L.Input((1,), dtype="int32", name="token")
    states = [L.Input((6,), name=f"state_{at}") for at in range(2)]
    x, *after = L.LSTM(6, return_sequences=True, return_state=True)(
        L.Embedding(30, 6)(token), initial_state=states
    )
    mask = L.Embedding(30, 6, mask_zero=True).compute_mask(ids)
    x = L.Concatenate()([x, L.Attention()([x, kept], mask=[None, mask])])
    decoder = keras.Model([ids, kept, token, *states], [L.Dense(30)(L.Flatten()(x)), *after])
    seq2seq("rnn", encoder, sharp(stirred(decoder, 1.5)), ["state_0", "state_1"], "translate")


def transformer() -> None:
    source = L.Input((8,), dtype="int32", name="source")
    x = L.Embedding(30, 8, mask_zero=True)(source)
    x = L.LayerNormalization(center=False, scale=False)(
        L.Add()([x, L.MultiHeadAttention(2, 4)(x, x)])
    )
    encoder = stirred(keras.Model(source, x), 1.5)
    ids = L.Input((8,), dtype="int32", name="source")
    kept, tokens_ = L.Input((8, 8), name="memory"), L.Input((10,), dtype="int32", name="tokens")
    position = L.Input((1,), dtype="int32", name="position")
    x = L.Embedding(30, 8, mask_zero=True)(tokens_)
    x = L.LayerNormalization(center=False, scale=False)(
        L.Add()([x, L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)])
    )
    x = L.LayerNormalization(center=False, scale=False)(
        L.Add()([x, L.MultiHeadAttention(2, 4)(x, kept)])
    )
    at = L.Flatten()(L.CategoryEncoding(10, output_mode="one_hot")(position))
    x = L.Dot(1)([at, x])
    # ``source`` has a part in it, as in every network of this kind, if only through its mask.
    x = L.Concatenate()([x, L.Rescaling(0.02)(L.GlobalMaxPooling1D()(L.Embedding(30, 2)(ids)))])
    decoder = stirred(keras.Model([ids, kept, tokens_, position], L.Dense(30)(x)), 1.5)
    seq2seq("transformer", encoder, sharp(decoder), [], "summarize")


def sharp(decoder: Any) -> Any:
    """With an end that comes now and then, and answers that are not all alike."""
    bias = decoder.layers[-1].bias if hasattr(decoder.layers[-1], "bias") else None
    for layer in decoder.layers:
        if type(layer).__name__ == "Dense":
            bias = layer.bias
    assert bias is not None
    values = keras.ops.convert_to_numpy(bias).copy()
    values[:] = [-30, -30, -30, 1, *(0 for _ in range(26))]
    bias.assign(values)
    return decoder


for make in (networks, classifier, tabular, rnn, transformer):
    if make.__name__ in sys.argv[2:]:
        keras.utils.set_random_seed(1)
        rng = np.random.default_rng(3)
        make()

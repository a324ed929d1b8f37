"""News articles and tweets, from raw texts to labels over HTTP, by each recipe of texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from quality import sentiment, topics
from tests.journeys.house import client_of, parted
from tests.processes import ServerProcess, cli

from openmaas.client import Client

BATCH = 64


class Texts(NamedTuple):
    """A data set that was uploaded, and what the server never saw."""

    dataset: Any
    new: list[str]
    truth: list[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, ServerProcess]]:
    with client_of(tmp_path_factory.mktemp("news") / "data") as found:
        yield found


def uploaded(client: Client, name: str, texts: list[str], labels: list[str]) -> Texts:
    known, new = parted(len(texts), seed=topics.SEED)  # as docs/quality.md has it
    rows = [{"text": texts[at], "label": labels[at]} for at in known]
    dataset = client.datasets.upload(
        rows, name=name, kinds={"text": "text"}, split={"validation": 0.1}
    )
    return Texts(dataset, [texts[at] for at in new], [labels[at] for at in new])


@pytest.fixture(scope="module")
def news(place: tuple[Client, ServerProcess]) -> Texts:
    texts, numbers = topics.read()
    return uploaded(place[0], "bbc", texts, [topics.LABELS[one] for one in numbers])


def accuracy(client: Client, model: str, texts: Texts) -> float:
    told: list[str] = []
    for at in range(0, len(texts.new), BATCH):
        told += [one.label for one in client.classify(texts.new[at : at + BATCH], model=model)]
    return sum(map(str.__eq__, told, texts.truth)) / len(told)


@pytest.mark.parametrize(
    ("recipe", "parameters", "least"),
    [
        ("text_embeddings", {}, 0.94),
        ("text_lstm", {}, 0.90),
        ("text_transformer", {}, 0.92),
        ("text_encoder", {"length": 128}, 0.96),
    ],
)
def test_topics_of_news(
    place: tuple[Client, ServerProcess],
    news: Texts,
    recipe: str,
    parameters: dict[str, Any],
    least: float,
) -> None:
    client, server = place
    if recipe == "text_encoder":
        cli(server.data, "models", "pull", "minilm-l6-v2")
    name = recipe.replace("_", "-")
    job = client.training.train(
        name, news.dataset, recipe=recipe, parameters=parameters, target="label", promote=True
    )
    assert job.card()["verification"]["max_abs_error"] <= 1e-4
    assert accuracy(client, name, news) >= least
    answer = server.client.post("/v1/classify", json={"model": name, "input": news.new[0]})
    (scores,) = (one["scores"] for one in answer.json()["data"])
    assert {one["label"] for one in scores} == set(topics.LABELS)


def test_sentiment_of_tweets(place: tuple[Client, ServerProcess]) -> None:
    client, _ = place
    train = sentiment.training()
    texts, numbers = sentiment.tweets(train)
    labels = [train.LABELS[one] for one in numbers]
    tweets = uploaded(client, "tweets", texts, labels)
    client.training.train(
        "tweets", tweets.dataset, recipe="text_embeddings", target="label", promote=True
    )
    told = [train.LABELS[one] for one in train.vader(tweets.new)]
    vader = sum(map(str.__eq__, told, tweets.truth)) / len(told)
    assert accuracy(client, "tweets", tweets) >= vader + 0.05

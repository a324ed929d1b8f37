"""How far explanations can be trusted: whether they name what a model goes by.

Inputs that no model has learnt from are explained over HTTP, and the parts that an explanation
calls important are taken away; then the weights are made random, and the explanations have to
change. Writes ``docs/explain-quality.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import eval_explain_context
import numpy as np
import peers
import report
from numpy.typing import NDArray
from quality import faithfulness, randomised, sentiment, topics
from quality.explained import (
    METHODS,
    SAMPLED,
    TOLERANCE,
    Inside,
    Kind,
    Pictures,
    Target,
    Texts,
)
from quality.faithfulness import Areas, Floats, Ratio
from quality.tables import Table, percent, renewed
from serve import Model, Served, command, openmaas
from sklearn.datasets import load_digits

from openmaas.client import Client
from openmaas.registry.artifacts import ArtifactStore

PAGE = Path(__file__).parents[1] / "docs" / "explain-quality.md"
SEED = 7
HELD_OUT = 0.2
RANDOM_ORDERS = 5
BAR, WITHIN = 3.0, 0.3  # of the areas' ratio at the least, of the rank correlation at the most
HELD_TO_BAR = [one for one in METHODS if one != "occlusion"]
ARTICLE_WORDS, TWEET_WORDS = 60, 8  # of an article the first, of a tweet at the least
LENGTH = 160  # tokens that the articles' network reads
LANGUAGE = "Answers of language models"
LANGUAGE_MODEL, PROMPTS = "smollm2-135m", 100

HEAD = """# Quality of explanations

Made by `make eval-explain` (some {minutes:.0f} minutes on two cores). A server explains, at
`/v1/explain` and with each method's defaults (but a tolerance of {tolerance:g} for integrated
gradients), why a model gave held-out inputs the label it gave them. All inputs, orders and weights
are drawn by seeds; a figure that misses what we want of it says so.

**Deletion and insertion** (Samek et al. 2017; Petsiuk et al. 2018). Parts are taken away, the one
of the greatest attribution first, and the probability of the label is watched; a removed word is
not there, a removed pixel is 0. Insertion begins with nothing and adds parts in the same order.
Curves run over the share of the parts, from none to all, and have areas from 0 to 1, here in per
cent. Random orders are {orders} for each input.

- *Drop ratio*: the mean drop of the probability, which is the area over the deletion curve, ÷ that
  of random orders. We want {bar:g} of the gradient and the Shapley methods. Where the probability
  is 0 from the first part on, the ratio is what the table calls the most possible; where that is
  below {bar:g}, no method can meet the bar.
- *Deletion ratio*: the area under the deletion curve of random orders ÷ the method's. It has no
  such limit, and is held to the same bar.
- *Insertion ratio*: the area over the insertion curve, up to 1, of random orders ÷ the method's.

Of all three 1 is chance and more is better. They are ratios of means over the inputs; brackets are
95 % intervals of the bootstrap.
"""


class Sizes(NamedTuple):
    """How much is done."""

    articles: int = 40
    tweets: int = 60
    digits: int = 60
    random_weights: int = 10  # inputs of each kind that are explained with random weights too
    learned: int | None = None  # articles to learn from; None: all


QUICK = Sizes(2, 3, 3, 2, 300)


class Words(NamedTuple):
    """A section of the page."""

    title: str
    text: str

    def markdown(self) -> str:
        return f"## {self.title}\n\n{self.text.rstrip()}\n"


class Case(NamedTuple):
    """A model, and inputs that it has not learnt from."""

    title: str
    what: str
    kind: Kind
    folder: Path  # the model's artifact
    inputs: Sequence[Any]
    parts: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=peers.DEFAULT_CACHE, help="for models")
    parser.add_argument(
        "--only", choices=[*CASES, "language"], action="append", help="its sections; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="a few inputs, and no page")
    parser.add_argument(
        "--methods", choices=METHODS, nargs="+", default=METHODS, help="their rows alone"
    )
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    sizes = QUICK if chosen.quick else Sizes()
    began = time.monotonic()
    names = [name for name in CASES if name in (chosen.only or CASES)]
    if names:
        with (
            openmaas(cache, [Model("sentiment")]) as served,
            Client(served.url, served.key, timeout=600) as client,
        ):
            for name in names:
                found = evaluated(CASES[name](client, served, sizes), chosen.methods, sizes)
                if not chosen.quick:
                    write([with_known_rows(table) for table in found])
    if "language" in (chosen.only or []) or not (chosen.only or chosen.quick):
        write(language(cache))
    if not chosen.quick and len(names) == len(CASES):
        write([], HEAD.format(
            minutes=(time.monotonic() - began) / 60, orders=RANDOM_ORDERS, bar=BAR,
            tolerance=TOLERANCE,
        ))  # fmt: skip


def write(sections: Sequence[Table | Words], head: str | None = None) -> None:
    """Renews sections of the page, or what stands before them; the others stay."""
    page = PAGE.read_text() if PAGE.exists() else "# Quality of explanations\n"
    if head is not None:
        page = re.sub(r"\A.*?(?=^## |\Z)", lambda _: head + "\n", page, flags=re.S | re.M)
    PAGE.write_text(renewed(page, list(sections)))  # type: ignore[arg-type]
    print(f"written: {PAGE}", flush=True)


def with_known_rows(table: Table) -> Table:
    """With the page's rows of methods that were not evaluated now."""
    page = PAGE.read_text() if PAGE.exists() else ""
    section = page.partition(f"## {table.title}\n")[2].partition("\n## ")[0]
    known = {}
    for line in section.splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) == len(table.header) and cells[0].strip("`") in METHODS:
            known[cells[0]] = cells
    known |= {row[0]: row for row in table.rows}
    order = {f"`{method}`": at for at, method in enumerate(METHODS)}
    rows = sorted(known.values(), key=lambda row: order.get(row[0], len(order)))
    return table._replace(rows=rows)


def evaluated(case: Case, methods: Sequence[str], sizes: Sizes) -> list[Table]:
    print(f"{case.title}: {len(case.inputs)} inputs …", flush=True)
    made = [curves(case, methods), random_weights(case, methods, sizes.random_weights)]
    for table in made:
        report.table(table.title, table.header, table.rows)
    return made


# --- deletion and insertion ----------------------------------------------------------------------


def curves(case: Case, methods: Sequence[str]) -> Table:
    found: dict[str, list[Areas]] = {method: [] for method in methods}
    chance: list[Areas] = []
    seconds = dict.fromkeys(methods, 0.0)
    for number, given in enumerate(case.inputs):
        target = case.kind.target(given)
        orders = faithfulness.random_orders(case.kind.parts(given), RANDOM_ORDERS, SEED + number)
        for method in methods:
            began = time.perf_counter()
            orders.append(faithfulness.order_of(case.kind.attributions(given, target, method)))
            seconds[method] += time.perf_counter() - began
        areas = faithfulness.areas(case.kind.play(given, target), orders)
        chance.append(faithfulness.mean_of(areas[:RANDOM_ORDERS]))
        for method, one in zip(methods, areas[RANDOM_ORDERS:], strict=True):
            found[method].append(one)
    rows = [
        [
            f"`{method}`",
            percent(float(np.mean([one.deletion for one in own]))),
            percent(float(np.mean([one.insertion for one in own]))),
            shown(faithfulness.drop_ratio(own, chance), method),
            shown(faithfulness.deletion_ratio(own, chance), method),
            shown(faithfulness.insertion_ratio(own, chance)),
            f"{seconds[method] / len(own):.2f}",
        ]
        for method, own in found.items()
    ]
    gone, come = (float(np.mean(both)) for both in zip(*[one[:2] for one in chance], strict=True))
    rows.append(["random orders", percent(gone), percent(come), "1", "1", "1", "-"])
    most = f"{faithfulness.most_drop(chance):.1f}"
    rows.append(["the most possible", "0", "100", most, "∞", "∞", "-"])
    return Table(
        case.title,
        case.what,
        ["method", "deletion", "insertion", "drop ratio", "deletion ratio", "insertion ratio",
         "seconds"],
        rows,
    )  # fmt: skip


def shown(ratio: Ratio, method: str | None = None) -> str:
    """
    Args:
        method: that is held to the bar, if it is one of those.
    """
    told = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    if method not in HELD_TO_BAR:
        return told
    return f"{told} ({'meets' if ratio.value >= BAR else '**misses**'} {BAR:g})"


# --- random weights ------------------------------------------------------------------------------


def random_weights(case: Case, methods: Sequence[str], count: int) -> Table:
    inputs = case.inputs[:count]
    with tempfile.TemporaryDirectory(prefix="openmaas-random-") as place:
        explain: dict[str, Inside] = {"trained": case.kind.inside(case.folder)}
        for which in ("all", "last"):
            randomised.copy(case.folder, Path(place) / which, which, SEED)  # type: ignore[arg-type]
            explain[which] = case.kind.inside(Path(place) / which)
        rows = []
        for method in methods:
            alike: dict[str, list[float]] = {}
            for given in inputs:
                for name, value in alikeness(case, given, method, explain).items():
                    alike.setdefault(name, []).append(value)
            means = {name: float(np.mean(values)) for name, values in alike.items()}
            told = f"{means['all']:.2f} ({'meets' if means['all'] < WITHIN else '**misses**'} "
            rows.append(
                [
                    f"`{method}`",
                    f"{told}{WITHIN:g})",
                    f"{means['last']:.2f}",
                    f"{means['seed']:.2f}" if "seed" in means else "1",
                    f"{means['everything']:.2f}",
                ]
            )
            print(f"  {method}: {means}", flush=True)
    return Table(
        f"{case.title}: random weights",
        f"Of the first {len(inputs)} inputs: rank correlation (Spearman) of the attributions' "
        "sizes with those of the same network after its weights were drawn anew, for the same "
        f"label; less than {WITHIN:g} is wanted where all layers are random. Compared are "
        f"{case.parts} whose removal changes the input; *all parts* counts the others too. "
        "*Another seed*: the trained network, explained again.",
        ["method", "all layers", "last layer alone", "another seed", "all layers, all parts"],
        rows,
    )


def alikeness(case: Case, given: Any, method: str, explain: dict[str, Inside]) -> dict[str, float]:
    """Rank correlations of one input's attributions with those of the trained network."""
    target: Target = case.kind.target(given)

    def size(which: str, seed: int = SEED) -> Floats:
        return np.abs(explain[which](given, target, method, seed))

    own, other, last = size("trained"), size("all"), size("last")
    matters = case.kind.matters(given, own)
    found = {
        "all": faithfulness.spearman(own[matters], other[matters]),
        "last": faithfulness.spearman(own[matters], last[matters]),
        "everything": faithfulness.spearman(own, other),
    }
    if method in SAMPLED:
        again = size("trained", SEED + 1)
        found["seed"] = faithfulness.spearman(own[matters], again[matters])
    return found


# --- models and inputs ---------------------------------------------------------------------------


def news(client: Client, served: Served, sizes: Sizes) -> Case:
    texts, labels = topics.read()
    known, judged = parted(len(texts))
    rows = [
        {"text": texts[at], "label": topics.LABELS[labels[at]]} for at in known[: sizes.learned]
    ]
    name = "explained-news"
    split = {"validation": 0.1, "test": 0.0}
    data = client.datasets.upload(
        rows, name=name, kinds={"text": "text"}, target="label", split=split
    )
    folder = trained(
        client, served, name, data, recipe="text_transformer", target="label",
        parameters={"length": LENGTH},
    )  # fmt: skip
    short = [" ".join(texts[at].split()[:ARTICLE_WORDS]) for at in judged]
    told = [one.label for at in range(0, len(short), 64)
            for one in client.classify(short[at : at + 64], model=name)]  # fmt: skip
    right = np.mean(
        [one == topics.LABELS[labels[at]] for one, at in zip(told, judged, strict=True)]
    )
    return Case(
        "News articles, by word",
        "BBC News as in [training quality](training-quality.md), by the recipe `text_transformer` "
        f"of {LENGTH} tokens from {len(rows)} articles; {percent(right)} % of the {len(judged)} "
        f"held-out articles' first {ARTICLE_WORDS} words get the right topic. Explained are "
        f"{sizes.articles} of them.",
        Texts(client, name),
        folder,
        short[: sizes.articles],
        "the words (of gradients, the tokens)",
    )


def tweets(client: Client, served: Served, sizes: Sizes) -> Case:
    train = sentiment.training()
    texts, _ = sentiment.tweets(train)
    judged, _ = train.split(len(texts))
    long = [texts[at] for at in judged if len(texts[at].split()) >= TWEET_WORDS]
    found = re.findall(r"sha256:[0-9a-f]{64}", command(served.data, "models", "show", "sentiment"))
    return Case(
        "Tweets, by word",
        f"The starter `sentiment` ([its quality](quality.md)) on {sizes.tweets} held-out tweets of "
        f"{TWEET_WORDS} words and more.",
        Texts(client, "sentiment"),
        stored(served, found[0]),
        long[: sizes.tweets],
        "the words (of gradients, the tokens)",
    )


def digits(client: Client, served: Served, sizes: Sizes) -> Case:
    known = load_digits()
    kept, judged = parted(len(known.target))
    given = known.images.astype(np.float32)
    name = "explained-digits"
    data = client.datasets.upload({"x": given[kept], "y": known.target[kept]}, target="y")
    folder = trained(client, served, name, data, recipe="image_cnn", target="y")
    (answer,) = client.predict(name, given[judged].tolist()).values()
    right = (np.array(answer.rows()).argmax(1) == known.target[judged]).mean()
    return Case(
        "Digits, by pixel",
        "scikit-learn's digits, 8×8 pixels, by the recipe `image_cnn`, which gets "
        f"{percent(right)} % of {len(judged)} held-out images right. Explained are {sizes.digits} "
        "of them; all 64 pixels are parts, of which about half are 0 and change nothing.",
        Pictures(client, name),
        folder,
        list(given[judged[: sizes.digits]]),
        "the pixels",
    )


CASES: dict[str, Callable[[Client, Served, Sizes], Case]] = {
    "news": news,
    "tweets": tweets,
    "digits": digits,
}


def parted(rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the rows that are uploaded, and of those that are explained."""
    judged, known = np.split(np.random.default_rng(SEED).permutation(rows), [int(rows * HELD_OUT)])
    return known, judged


def trained(client: Client, served: Served, name: str, data: Any, **job: Any) -> Path:
    """The artifact's folder of a version that is served then."""
    began = time.perf_counter()
    made = client.training.train(name, data, promote=True, **job)
    print(f"  {name}: {time.perf_counter() - began:.0f} s", flush=True)
    return stored(served, made.card()["digest"])


def stored(served: Served, digest: str) -> Path:
    return ArtifactStore(served.data / "artifacts").open(digest)


def language(cache: Path) -> list[Words]:
    """Planted evidence in prompts of a language model."""
    found = asyncio.run(eval_explain_context.evaluate(cache, LANGUAGE_MODEL, PROMPTS))
    return [Words(LANGUAGE, eval_explain_context.shown(LANGUAGE_MODEL, PROMPTS, *found))]


if __name__ == "__main__":
    main()

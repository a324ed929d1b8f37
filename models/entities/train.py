"""Trains the starter model ``entities`` and writes it, with its card, where the package ships it.

    make install
    .venv/bin/python models/entities/train.py

Additions of rank 8 to the upper layers of the catalog's ``minilm-l6-v2``, and a linear head on
each token's state. Data: sentences with gaps (``prose.py``) that names and addresses of Faker fill
(``names.py``), and sentences of BBC News whose people are known by their titles and first names
(``news.py``). Names of one hash in five are held out. Faker keeps some of its names in sets, so
two runs differ in a few of them. About ten minutes on two free cores.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import generated
import news
import numpy as np
import prose
import torch
from generated import ADDRESS, ORGANISATION, PERSON, Builder, Labelled
from measure import card
from names import Names
from network import Tagger
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import Tokenizer

from openmaas.registry import sources
from openmaas.registry.catalog import Catalog
from openmaas.registry.fetching import Wanted, silent
from openmaas.registry.importers import encoder_weights

SEED = 7
LABELS = ["O", *(f"{mark}-{kind}" for kind in (PERSON, ADDRESS, ORGANISATION) for mark in "BI")]
STEPS, BATCH, RATE, WARM, DECAY = 1000, 32, 2e-3, 50, 0.01
TOKENS = 128
POOL = 16  # batches that are made at a time, so that one holds texts of like length
UNKNOWN = -100  # a token that teaches nothing
TARGET = Path(__file__).parents[2] / "src/openmaas/registry/starter"

Ids = NDArray[np.int64]


class Examples:
    """Batches of texts as the network reads them; never the same one twice."""

    def __init__(self, tokenizer: Tokenizer, documents: list[str]) -> None:
        self._tokenizer = tokenizer
        self._chance = random.Random(SEED)
        self._names = Names(SEED, held=False)
        reader = news.Newsreader(documents)
        self._news = [line for one in documents for line in reader.read(one)]
        self._peopled = [line for line in self._news if line.spans]
        self._frames = generated.frames(prose.TRAINED)
        self._harmless = generated.frames(prose.HARMLESS)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Ids, mask and labels [BATCH, tokens], of texts of about one length, without end."""
        while True:
            texts = [self._text() for _ in range(BATCH * POOL)]
            encodings = self._tokenizer.encode_batch([one.text for one in texts])
            pairs = sorted(zip(texts, encodings, strict=True), key=lambda pair: len(pair[1].ids))
            starts = list(range(0, len(pairs), BATCH))
            self._chance.shuffle(starts)
            for at in starts:
                yield _batch(pairs[at : at + BATCH])

    def _text(self) -> Labelled:
        """One to three sentences."""
        made = Builder()
        for number in range(self._chance.choice([1, 1, 1, 2, 2, 3])):
            made.join(self._sentence(), self._chance.choice([" ", " ", "\n"]) if number else "")
        return made.done()

    def _sentence(self) -> Labelled:
        at = self._chance.random()
        if at < 0.46:
            return generated.fill(self._chance.choice(self._frames), self._names)
        if at < 0.60:
            return generated.fill(self._chance.choice(self._harmless), self._names)
        lines = self._peopled if at < 0.82 else self._news
        return news.renamed(self._chance.choice(lines), self._names, self._chance)


def _batch(
    pairs: list[tuple[Labelled, Any]],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    longest = max(len(encoding.ids) for _, encoding in pairs)
    ids, mask = np.zeros((2, len(pairs), longest), np.int64)
    wanted = np.full((len(pairs), longest), UNKNOWN)
    for row, (one, encoding) in enumerate(pairs):
        ids[row, : len(encoding.ids)] = encoding.ids
        mask[row, : len(encoding.ids)] = 1
        wanted[row, : len(encoding.ids)] = labels(one, encoding)
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(wanted)


def labels(one: Labelled, encoding: Any) -> list[int]:
    """A number for each token of a text."""
    found = []
    for start, end in encoding.offsets:
        inside = [span for span in one.spans if span[0] < end and start < span[1]]
        if start == end or any(first < end and start < last for first, last in one.unknown):
            found.append(UNKNOWN)
        elif inside:
            mark = "B" if start <= inside[0][0] else "I"
            found.append(LABELS.index(f"{mark}-{inside[0][2]}"))
        else:
            found.append(0)
    return found


def main() -> None:
    torch.manual_seed(SEED)
    entry = Catalog.read().entry("minilm-l6-v2")
    wanted = Wanted(source=entry.source, sha256=entry.sha256, size=entry.size)
    trained, held_out = news.documents()
    with (
        tempfile.TemporaryDirectory() as place,
        sources.fetched(wanted, Path(place), progress=silent) as fetched,
    ):
        tokenizer = Tokenizer.from_file(str(fetched.path / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(TOKENS)
        tagger = Tagger(encoder_weights.read(fetched.path), len(LABELS))
        fit(tagger, Examples(tokenizer, trained))
    write(tagger)
    text = card(held_out)
    (TARGET / "entities.md").write_text(text, encoding="utf-8")
    print(text)


def fit(tagger: Tagger, examples: Examples) -> None:
    """AdamW (Loshchilov and Hutter 2019), the rate falling to nothing along a line."""
    optimizer = torch.optim.AdamW(tagger.parameters(), lr=RATE, weight_decay=DECAY)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARM, (STEPS - step) / (STEPS - WARM))
    )
    tagger.train()
    began, total = time.monotonic(), 0.0
    for step, (ids, mask, wanted) in enumerate(islice(examples.batches(), STEPS)):
        logits = tagger(ids, mask)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tagger.parameters(), 1.0)
        optimizer.step()
        rate.step()
        total += float(loss.detach())
        if step % 50 == 49:
            print(f"{step + 1} of {STEPS}: loss {total / 50:.4f}, {time.monotonic() - began:.0f} s")
            total = 0.0


def write(tagger: Tagger) -> None:
    folder = TARGET / "entities"
    folder.mkdir(exist_ok=True)
    (folder / "head.safetensors").write_bytes(save(tagger.tensors()))
    (folder / "head.json").write_text(json.dumps({"task": "tag", "labels": LABELS}) + "\n")
    size, sha256 = sources.digest_of_folder(folder)
    print(f"{size} bytes; head_sha256 = {sha256}")


if __name__ == "__main__":
    main()

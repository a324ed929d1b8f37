"""People, addresses and organisations in texts, beside every run of capitalised words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from quality.tables import Table, held, percent

from openmaas.client import Client
from openmaas.inference import Span

BATCH = 128
RECALL = 0.85  # of people and addresses with names that were never seen
TRAIN = Path(__file__).parents[2] / "models" / "entities"
_RUN = re.compile(r"(?<![.!?\n] )(?<!^)\b[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*")


def run(client: Client) -> Table:
    sys.path.insert(0, str(TRAIN))
    import measure
    import news

    sets = {
        "held-out names, unseen sentences": measure.unseen(news.documents()[1]),
        "BBC News, labelled by hand": measure.labelled("news"),
        "letters, labelled by hand": measure.labelled("letters"),
    }
    rows = []
    for name, texts in sets.items():
        told = _told(client, [one.text for one in texts])
        capitals = [_capitals(one.text) for one in texts]
        for label in measure.KINDS:
            ours = measure.score(texts, told, label)
            if not ours.there:
                continue
            recall = ours.found / ours.there
            bar = name.startswith("held") and label != measure.ORGANISATION
            row = [name, label, str(ours.there)]
            row += [held(recall, RECALL) if bar else percent(recall), _share(ours)]
            if label == measure.PERSON:
                peer = measure.score(texts, capitals, label)
                row += [percent(peer.found / peer.there), _share(peer)]
            else:
                row += ["", ""]
            rows.append(row)
            print(f"  {row}", flush=True)
    return Table(
        "Entities",
        "Starter `entities` at `/v1/entities`, beside taking every run of capitalised words that "
        "begins no sentence for a person. Names of Faker that were never trained on, in sentences "
        "and news that were not either; and two sets labelled by hand "
        "(`models/entities/labelled.txt`). Recall: covered to the last letter. Precision: spans of "
        "which at least half is what they say.",
        ["texts", "label", "there", "recall", "precision", "capitals' recall", "precision"],
        rows,
    )


def _told(client: Client, texts: list[str]) -> list[list[Span]]:
    found: list[list[Span]] = []
    for at in range(0, len(texts), BATCH):
        found += [
            [Span(start=one.start, end=one.end, label=one.label, score=one.score) for one in of_one]
            for of_one in client.entities(texts[at : at + BATCH], model="entities")
        ]
    return found


def _capitals(text: str) -> list[Span]:
    return [
        Span(start=one.start(), end=one.end(), label="PERSON", score=1.0)
        for one in _RUN.finditer(text)
    ]


def _share(score: Any) -> str:
    return percent(score.right / score.told) if score.told else "–"

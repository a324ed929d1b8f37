"""English ↔ Portuguese, on sentences of the Debian Administrator's Handbook."""

from __future__ import annotations

from pathlib import Path

import sacrebleu
from quality.tables import Table

from openmaas.client import Client

PAIRS = Path(__file__).with_name("bilingual") / "handbook.en-pt.tsv"
BATCH, ASKED = 50, 20


def pairs() -> list[tuple[str, str]]:
    """(English, Portuguese)."""
    lines = PAIRS.read_text(encoding="utf-8").splitlines()
    return [(former, latter) for former, latter in (line.split("\t") for line in lines)]


def scores(told: list[str], wanted: list[str]) -> list[str]:
    """chrF and BLEU, as sacrebleu computes them by default."""
    return [
        f"{metric(told, [wanted]).score:.1f}"
        for metric in (sacrebleu.corpus_chrf, sacrebleu.corpus_bleu)
    ]


def translated(
    client: Client, texts: list[str], source: str, target: str, model: str | None = None
) -> list[str]:
    made = []
    for at in range(0, len(texts), BATCH):
        made += client.translate(texts[at : at + BATCH], target, source=source, model=model)
    return [one.text for one in made]


def run(client: Client) -> Table:
    known = pairs()
    texts = {"en": [one for one, _ in known], "pt": [other for _, other in known]}
    rows = []
    for source, target in (("en", "pt"), ("pt", "en")):
        there = translated(client, texts[source], source, target)
        back = translated(client, there, target, source)
        kept = scores(texts[source], texts[target])
        count = str(len(known))
        rows += [
            [f"{source} → {target}", count, *scores(there, texts[target]), *kept],
            [f"{source} → {target} → {source}", count, *scores(back, texts[source]), "-", "-"],
        ]
        print(f"  {rows[-2:]}", flush=True)
    made = translated(client, texts["en"][:ASKED], "en", "pt", "smollm2-135m")
    kept = scores(texts["en"][:ASKED], texts["pt"][:ASKED])
    row = ["en → pt by a chat model", str(ASKED), *scores(made, texts["pt"][:ASKED]), *kept]
    rows.append(row)
    return Table(
        "Translation",
        "`/v1/translate` with the starters `en-pt` and `pt-en`, and with `smollm2-135m`, which "
        "was taught English alone, against the published translation; beside the text left "
        "untranslated. Sentences: `benchmarks/quality/bilingual/` (CC BY-SA 3.0); whether the "
        "translators' training data had them, their makers do not say. "
        f"sacrebleu {sacrebleu.__version__}.",
        ["way", "sentences", "chrF", "BLEU", "untranslated chrF", "untranslated BLEU"],
        rows,
    )

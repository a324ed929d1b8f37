"""Quality of the language tasks on real data, each beside a baseline in the same run.

Everything goes through a server that has the starter models, as a tenant's calls would. Writes
``docs/quality.md``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import peers
import report
from quality import sentiment, summaries, topics, translations
from quality.tables import renewed
from serve import Model, openmaas

from openmaas.client import Client

EVALUATIONS = {
    "sentiment": sentiment.run,
    "topics": topics.run,
    "summaries": summaries.run,
    "translations": translations.run,
}
MODELS = ["smollm2-135m", "minilm-l6-v2", "sentiment", "en-pt", "pt-en"]
PAGE = Path(__file__).parents[1] / "docs" / "quality.md"
HEAD = """# Quality of the language tasks

Made by `make eval-tasks` ({minutes:.0f} minutes on two cores), which fetches the data, asks a
server with the starter models, and writes this page. Splits are fixed by seeds; a figure that
misses what we want of it says so. All figures but points are in per cent or of 100.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=peers.DEFAULT_CACHE, help="for models")
    parser.add_argument(
        "--only", choices=EVALUATIONS, action="append", help="its section alone; repeatable"
    )
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    began = time.monotonic()
    tables = []
    with (
        openmaas(cache, [Model(name) for name in MODELS]) as served,
        Client(served.url, served.key, timeout=600) as client,
    ):
        for name in chosen.only or EVALUATIONS:
            print(f"{name} …", flush=True)
            tables.append(EVALUATIONS[name](client))
            report.table(tables[-1].title, tables[-1].header, tables[-1].rows)
    whole = HEAD.format(minutes=(time.monotonic() - began) / 60)
    PAGE.write_text(renewed(PAGE.read_text() if chosen.only else whole, tables))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()

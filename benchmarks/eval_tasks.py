"""Quality of the language tasks on real data, each beside a baseline in the same run.

Everything goes through a server that has the starter models, as a tenant's calls would. Writes
``docs/quality.md``.
"""

from __future__ import annotations

from pathlib import Path

from quality import entities, evaluating, sentiment, summaries, topics, translations

EVALUATIONS = {
    "sentiment": sentiment.run,
    "entities": entities.run,
    "topics": topics.run,
    "summaries": summaries.run,
    "translations": translations.run,
}
MODELS = ["smollm2-135m", "minilm-l6-v2", "sentiment", "entities", "en-pt", "pt-en"]
PAGE = Path(__file__).parents[1] / "docs" / "quality.md"
HEAD = """# Quality of the language tasks

Made by `make eval-tasks` ({minutes:.0f} minutes on two cores), which fetches the data, asks a
server with the starter models, and writes this page. Splits are fixed by seeds; a figure that
misses what we want of it says so. All figures but points are in per cent or of 100.
"""


def main() -> None:
    evaluating.run(__doc__ or "", EVALUATIONS, MODELS, PAGE, HEAD)


if __name__ == "__main__":
    main()

"""chrF of texts (Popović, 2015, https://aclanthology.org/W15-3049): as sacrebleu computes it by
default, for one reference a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

ORDER = 6  # characters of the longest n-grams
BETA = 2.0  # how many times more recall weighs than precision


def chrf(told: Sequence[str], wanted: Sequence[str]) -> float:
    """Of all texts together, 0 to 100; white space does not count."""
    sums = [[0, 0, 0] for _ in range(ORDER)]  # of each length: told, wanted, in both
    for one, other in zip(told, wanted, strict=True):
        for total, counts in zip(sums, _counts(one, other), strict=True):
            for at, count in enumerate(counts):
                total[at] += count
    precision = recall = 0.0
    lengths = 0
    for told_count, wanted_count, common in sums:
        if told_count and wanted_count:
            precision += common / told_count
            recall += common / wanted_count
            lengths += 1
    if not lengths or not precision + recall:
        return 0.0
    precision, recall = precision / lengths, recall / lengths
    score = (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
    return 100 * score


def _counts(told: str, wanted: str) -> list[list[int]]:
    one, other = ("".join(text.split()) for text in (told, wanted))
    found = []
    for length in range(1, ORDER + 1):
        mine, theirs = _grams(one, length), _grams(other, length)
        common = sum((mine & theirs).values())
        # As sacrebleu: a text without n-grams of this length says nothing of precision.
        found.append([mine.total() if theirs else 0, theirs.total(), common])
    return found


def _grams(text: str, length: int) -> Counter[str]:
    return Counter(text[at : at + length] for at in range(len(text) - length + 1))

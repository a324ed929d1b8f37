"""Recall and precision of entities."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from quality.privacy.generated import Label, Text

Finds = Callable[[str], Iterable[Label]]

LOOSE = {"person": 0.8, "address": 0.8}
"""Share of its letters and digits that must be found of what has no clear end; of all else, all."""
INSIDE = 0.5  # of what is found, that must be of a thing of its kind


class Score:
    """Of one kind, over some texts."""

    def __init__(self) -> None:
        self.wanted = self.hit = self.told = self.right = 0

    @property
    def recall(self) -> float | None:
        return self.hit / self.wanted if self.wanted else None

    @property
    def precision(self) -> float | None:
        return self.right / self.told if self.told else None


def scored(texts: Sequence[Text], finds: Finds, wrong: list[str] | None = None) -> dict[str, Score]:
    """
    Args:
        wrong: gets a line for each miss and each false find.
    """
    scores: dict[str, Score] = defaultdict(Score)
    for text, labels in texts:
        found = list(finds(text))
        for label in labels:
            score = scores[label.kind]
            score.wanted += 1
            covered = _places(text, [one for one in found if one.kind == label.kind])
            whole = _places(text, [label])
            hit = len(whole & covered) >= LOOSE.get(label.kind, 1.0) * len(whole)
            score.hit += hit
            if not hit and wrong is not None:
                wrong.append(f"missed {label.kind}: {text[label.start : label.end]!r} in {text!r}")
        for one in found:
            score = scores[one.kind]
            score.told += 1
            own = _places(text, [one])
            true = _places(text, [label for label in labels if label.kind == one.kind])
            right = len(own & true) >= INSIDE * len(own)
            score.right += right
            if not right and wrong is not None:
                wrong.append(f"false {one.kind}: {text[one.start : one.end]!r} in {text!r}")
    return scores


def together(several: Iterable[dict[str, Score]]) -> dict[str, Score]:
    whole: dict[str, Score] = defaultdict(Score)
    for scores in several:
        for kind, score in scores.items():
            for name in ("wanted", "hit", "told", "right"):
                setattr(whole[kind], name, getattr(whole[kind], name) + getattr(score, name))
    return whole


def found_kinds(texts: Sequence[Text], finds: Finds) -> Counter[str]:
    return Counter(one.kind for text, _ in texts for one in finds(text))


def _places(text: str, labels: Iterable[Label]) -> set[int]:
    """Of the letters and digits."""
    return {at for one in labels for at in range(one.start, one.end) if text[at].isalnum()}

"""Which deployed model does a task best, where the caller names none. 0 is best; None cannot."""

from __future__ import annotations

from openmaas.inference import ModelInfo

SENTIMENTS = {"negative", "positive"}


def tokenizes(info: ModelInfo) -> int | None:
    return None if info.task == "predict" else 0


def embeds(info: ModelInfo) -> int | None:
    return 0 if info.task == "embed" else None


def classifies(info: ModelInfo) -> int | None:
    """By labels of its own."""
    return 0 if info.task == "classify" and not info.pairs else None


def classifies_by_labels(info: ModelInfo) -> int | None:
    """By labels that the caller gives: an encoder is a hundred times cheaper than asking a
    language model about each label, and more often right than a small one."""
    return {"embed": 0, "chat": 1}.get(info.task)


def classifies_somehow(info: ModelInfo) -> int | None:
    found = classifies(info)
    return classifies_by_labels(info) if found is None else found


def feels(info: ModelInfo) -> int | None:
    """A classifier that knows negative and positive."""
    known = {label.lower() for label in info.labels}
    return 0 if classifies(info) == 0 and known >= SENTIMENTS else None


def tags(info: ModelInfo) -> int | None:
    """Finds spans, such as names, in texts."""
    return 0 if info.task == "tag" else None


def reranks(info: ModelInfo) -> int | None:
    if info.task == "classify":
        return 0 if info.pairs else None
    return 1 if info.task == "embed" else None


def summarizes(info: ModelInfo) -> int | None:
    """Sentences of the text itself are true to it; what a small language model writes may not
    be, so that one is asked for by name, as is a network that was trained on some kind of text."""
    return {"embed": 0, "chat": 1, "summarize": 2}.get(info.task)


def translates(info: ModelInfo) -> int | None:
    """A chat model may translate too, but is asked for by name."""
    return 0 if info.task == "translate" else None


def translates_somehow(info: ModelInfo) -> int | None:
    return {"translate": 0, "chat": 1}.get(info.task)


def explains(info: ModelInfo) -> int | None:
    """Whose answers can be explained."""
    able = info.task in ("predict", "classify", "embed", "chat")
    return 0 if able and not info.pairs else None

"""Numbers, values and facts of an explanation in words; the same in all pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from openmaas.explaining.explanation import Explanation, Feature, Piece

# Of strangers' texts: escape sequences would command the terminal, and overrides of direction
# show other words than the model read.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_METHODS = {
    "saliency": "saliency",
    "integrated_gradients": "integrated gradients",
    "smoothgrad": "SmoothGrad",
    "occlusion": "occlusion",
    "shapley": "Shapley values",
    "kernel_shap": "Kernel SHAP",
    "leave_one_out": "leave one out",
    "context_cite": "ContextCite",
    "surprise": "surprise",
}


def harmless(text: str) -> str:
    """A text without the characters that command what shows it."""
    return _COMMANDS.sub("\ufffd", text.replace("\r\n", "\n").replace("\t", "    "))


def line(text: str, most: int = 60) -> str:
    """A text on one line, its end cut off where it is long."""
    flat = harmless(text[: most * 4].replace("\n", "↵"))
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def label(piece: Piece) -> str:
    """A piece in a list: tokens often begin with a space, and some are nothing else."""
    return line(piece.text.strip() or piece.text.replace(" ", "␣")) or "(nothing)"


def signed(value: float, greatest: float) -> str:
    """A number with its sign, and as many places as tell it from the greatest beside it."""
    if not math.isfinite(value):
        return "—"
    if greatest and not 1e-3 <= greatest < 1e5:
        text = f"{value:+.2e}"
    else:
        text = f"{value:+.{places(greatest)}f}"
    if not text.strip("+-0.e"):
        return text.lstrip("+-")  # a nothing has no sign
    return text.replace("-", "−", 1) if text.startswith("-") else text


def places(greatest: float) -> int:
    """Decimal places that leave three significant digits of a number between 0.001 and 10⁵."""
    return 2 if not greatest else max(0, 2 - math.floor(math.log10(greatest)))


def short(value: float, greatest: float) -> str:
    """A signed number for a small cell: two digits of it."""
    if not 1e-3 <= greatest < 1e5:
        return signed(value / greatest, 1.0)[:4] if greatest else "0"
    text = f"{value:+.{max(0, places(greatest) - 1)}f}"
    if not text.strip("+-0."):
        return "0"
    sign = "−" if text.startswith("-") else "+"
    return sign + (text[2:] if text[1:].startswith("0.") else text[1:])


def reach(rows: Sequence[Piece | Feature]) -> tuple[float, bool]:
    """How far bars and their whiskers go, and whether to both sides."""
    ends = [end for one in rows for end in (one.attribution, one.low, one.high) if end is not None]
    return max((abs(end) for end in ends), default=0.0), any(end < 0 for end in ends)


def plain(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "not known"
    return f"{value + 0.0:.4g}".replace("-", "−", 1) if value else "0"


def interval(low: float | None, high: float | None, greatest: float) -> str:
    """[+0.20, +0.42], or nothing."""
    if low is None or high is None:
        return ""
    return f"[{signed(low, greatest)}, {signed(high, greatest)}]"


def value(given: Any) -> str:
    """What a column held."""
    if given is None or (isinstance(given, float) and not math.isfinite(given)):
        return "—"
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, float):
        return f"{given + 0.0:.6g}"
    if isinstance(given, str):
        return line(given, 40)
    if isinstance(given, list | dict):
        return line(json.dumps(given, ensure_ascii=False, default=str), 40)
    return line(str(given), 40)


def spelled(text: str) -> str:
    """How a coloured piece is drawn: a break of lines alone would have no colour to see."""
    return text if text.strip() else text.replace("\n", "↵\n")


def about(one: Piece | Feature, greatest: float) -> str:
    """Everything known of a piece or a column, on one line."""
    said = signed(one.attribution, greatest)
    if one.low is not None and one.high is not None:
        said += f", 95 % interval {interval(one.low, one.high, greatest)}"
    if isinstance(one, Piece) and one.logprob is not None:
        said += f"; logprob {plain(one.logprob)} ({math.exp(min(0.0, one.logprob)):.1%})"
    if isinstance(one, Piece) and one.alternatives:
        others = (f"“{line(at.text, 20)}” {plain(at.logprob)}" for at in one.alternatives[:5])
        said += f"; instead of it: {', '.join(others)}"
    return said


def method(explanation: Explanation) -> str:
    return _METHODS.get(explanation.method, explanation.method)


def sides(explanation: Explanation) -> tuple[str, str]:
    """What greater than nothing means, and less."""
    if explanation.method == "surprise":
        return "surprised the model", "was expected"
    return "speaks for the answer", "speaks against it"


def facts(explanation: Explanation) -> list[tuple[str, str]]:
    """How it was made and how far it goes, as names and values."""
    trust = explanation.trust
    found = [
        ("model", f"{line(explanation.model, 100)}@{line(explanation.version, 60)}"),
        ("task", line(explanation.task, 60)),
        ("method", f"{method(explanation)}, by {explanation.unit}"),
        ("source", line(explanation.source, 200)),
    ]
    if trust.completeness_error is not None:
        verdict = {None: "", True: ", within the tolerance", False: ", beyond the tolerance"}
        found.append(
            ("completeness error", plain(trust.completeness_error) + verdict[trust.converged])
        )
    if trust.interval is not None:
        found.append(("95 % intervals", f"± {plain(trust.interval)} in the mean"))
    if trust.fit is not None:
        found.append(("fit of the surrogate", f"R² {plain(trust.fit)}"))
    return [*found, ("cost", _cost(explanation)), ("seed", str(explanation.seed))]


def _cost(explanation: Explanation) -> str:
    cost = explanation.cost
    said = f"{cost.forward_passes} forward"
    if cost.backward_passes:
        said += f" and {cost.backward_passes} backward"
    said += " passes"
    return said if cost.seconds is None else f"{said}, {plain(cost.seconds)} s"


def notes(explanation: Explanation) -> list[str]:
    return [line(note, 500) for note in explanation.trust.notes[:20]]

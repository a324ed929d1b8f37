"""What an evaluation gives: a table for the terminal and for the documents."""

from __future__ import annotations

from typing import NamedTuple


class Table(NamedTuple):
    title: str
    what: str  # model, endpoint, data, baseline
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"## {self.title}\n\n{self.what}\n\n{table}\n"


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def held(share: float, bar: float) -> str:
    """A share beside the bar that it is held to."""
    return f"{percent(share)} ({'meets' if share >= bar else '**misses**'} {percent(bar)})"

"""What an evaluation gives: a table for the terminal and for the documents."""

from __future__ import annotations

import re
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


def renewed(page: str, tables: list[Table]) -> str:
    """A page with the sections of these tables as they are now; new ones come last."""
    head, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    found = {section.splitlines()[0]: section.rstrip() + "\n" for section in sections}
    found |= {f"## {table.title}": table.markdown() for table in tables}
    return "\n".join([head.rstrip() + "\n", *found.values()])


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def held(share: float, bar: float) -> str:
    """A share beside the bar that it is held to."""
    return f"{percent(share)} ({'meets' if share >= bar else '**misses**'} {percent(bar)})"

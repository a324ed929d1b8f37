"""How much an upload may unfold to, and what happens to rows that cannot be read."""

from __future__ import annotations

from openmaas.errors import InvalidRequest
from openmaas.training.data import BadRow
from openmaas.training.options import Options

FIELD = 1 << 20  # characters of one value
LINE = 16 << 20  # bytes of one line, or of one row in all
COLUMNS = 10_000
ROWS = 100_000_000
NAME = 200  # characters of a column's name
RATIO = 100  # canonical form ÷ upload, beyond …
SMALL = 256 << 20  # … so many bytes
SHOWN = 20  # bad rows that are told of


class Budget:
    """Bytes that the rows of an upload may have.

    Args:
        size: of the upload.
    """

    def __init__(self, size: int) -> None:
        self._allowed = max(SMALL, RATIO * size)
        self._left = self._allowed

    def take(self, count: int) -> None:
        """
        Raises:
            InvalidRequest: it is used up.
        """
        self._left -= count
        if self._left < 0:
            raise InvalidRequest(
                f"it unfolds to more than {self._allowed >> 20} MiB, over {RATIO} times its size"
            )


class BadRows:
    """Rows that are left out, or are why nothing is read."""

    def __init__(self, options: Options) -> None:
        self.count = 0
        self.refuse = options.bad_rows == "refuse"
        self._most = options.max_bad_fraction
        self._first: list[BadRow] = []

    def add(self, line: int, why: str) -> None:
        """
        Raises:
            InvalidRequest: bad rows are refused, and there are enough to tell of.
        """
        self.count += 1
        if len(self._first) < SHOWN:
            self._first.append(BadRow(line, why[:300]))
        elif self.refuse:
            raise self._refusal("more than")

    def first(self) -> list[BadRow]:
        return sorted(self._first, key=lambda row: row.line)

    def check(self, good: int) -> None:
        """
        Raises:
            InvalidRequest: there are bad rows and they are refused, or there are too many.
        """
        if self.count and self.refuse:
            raise self._refusal("")
        if self.count > self._most * (good + self.count):
            raise InvalidRequest(
                f"{self.count} of {good + self.count} rows are bad, more than "
                f"max_bad_fraction={self._most:g} of them:\n{self._told()}"
            )

    def _refusal(self, more: str) -> InvalidRequest:
        rows = "1 row is" if self.count == 1 else f"{more} {len(self._first)} rows are".strip()
        return InvalidRequest(f"{rows} bad (bad_rows: skip leaves such out):\n{self._told()}")

    def _told(self) -> str:
        return "\n".join(f"line {row.line}: {row.why}" for row in self.first())


def check_names(names: list[str]) -> None:
    """
    Raises:
        InvalidRequest: too many, one twice, or one that is no name.
    """
    if len(names) > COLUMNS:
        raise InvalidRequest(f"there are {len(names)} columns; {COLUMNS} is the most")
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise InvalidRequest(
                f"column {number} has no name (of pandas: to_csv(…, index=False) leaves the "
                "index out)"
            )
        if len(name) > NAME or not name.isprintable():
            raise InvalidRequest(
                f"the name of column {number} has over {NAME} characters, or odd ones"
            )
        if name in seen:
            raise InvalidRequest(f"two columns are called {name!r}")
        seen.add(name)

"""A ledger of ten million rows: how fast it is written, and what a month's statement takes.

Rows are written by the product's own statements in groups of 500, as its writer commits them, and
spread over a year: 50 tenants, 3 projects each, 2 keys each, 8 models. SQLite; `--postgres` starts
a PostgreSQL instead.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import httpx
import peers
import report
from launch import free_port, server
from serve import OPENMAAS

sys.path.insert(0, str(Path(__file__).parents[1]))
from openmaas.database import Database, open_database
from openmaas.tenancy import usage
from openmaas.tenancy.ledger_rows import Row, Statements

GROUP, DAYS, BAR = 500, 365, 1.0
TENANTS, PROJECTS, KEYS, MODELS = 50, 3, 2, 8
BEGAN_MS = 1_767_225_600_000  # 2026-01-01
MONTH = "2026-07"
KEY = "om-bench-ledger-0123456789abcdef"
TASKS = ("chat", "embed", "predict", "classify")


def made(count: int) -> Iterator[list[Row]]:
    """Groups of rows in the order of time."""
    draw = random.Random(1)
    step = DAYS * 86_400_000 / count
    group: list[Row] = []
    for number in range(count):
        at = BEGAN_MS + int(number * step)
        tenant, project = draw.randrange(TENANTS), draw.randrange(PROJECTS)
        key, model = draw.randrange(KEYS), draw.randrange(MODELS)
        read, wrote = draw.randrange(1, 2000), draw.randrange(1, 500)
        group.append(
            Row(
                f"req_{at:012x}{number:018x}", 0, at, f"tenant-{tenant}", f"project-{project}",
                f"key_{tenant}_{project}_{key}", f"model-{model}", "1", TASKS[model % 4],
                "interactive", "ok" if number % 50 else "cut", read, 0, wrote, 0, 0, 900, 250_000,
                1, read * 150 + wrote * 600, None,
            )
        )  # fmt: skip
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


def write(database: Database, count: int) -> tuple[float, float]:
    """Seconds of the transactions alone: of all, and of the last twentieth."""
    statements = Statements(database.dialect)
    seconds: list[float] = []
    for number, group in enumerate(made(count)):
        began = time.perf_counter()
        with database.write() as connection:
            statements.replace(connection, [], group)
        seconds.append(time.perf_counter() - began)
        if number * GROUP % 1_000_000 == 0:
            print(f"{number * GROUP:,} rows", flush=True)
    last = seconds[-max(1, len(seconds) // 20) :]
    return count / sum(seconds), min(count, len(last) * GROUP) / sum(last)


def timed(work: object, times: int = 5) -> float:
    """The median of some runs, seconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()  # type: ignore[operator]
        found.append(time.perf_counter() - began)
    return median(found)


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--postgres", action="store_true")
    chosen = parser.parse_args()
    print(report.machine())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="openmaas-ledger-")))
        url = None
        if chosen.postgres:
            from tests.postgres import Postgres

            postgres = Postgres()
            stack.callback(postgres.remove)
            url = postgres.url(postgres.database())
        database = open_database(folder, url)
        of_all, of_last = write(database, chosen.rows)
        lines = [
            ["rows written a second, of all", report.number(of_all), ""],
            ["… of the last twentieth", report.number(of_last), ""],
        ]
        if url is None:
            size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
            lines.append(["database, MB", report.number(size / 1e6), ""])
        lines += asked(database, folder, url)
    report.table(f"{chosen.rows:,} rows on {database.dialect}", ["", "", "bar"], lines)


def asked(database: Database, folder: Path, url: str | None) -> list[list[str]]:
    month = usage.period(MONTH, MONTH)
    statement = timed(lambda: usage.statement(database, "tenant-7", MONTH, "USD"))
    lines = [_second("a month's statement", statement)]
    port = free_port()
    env = {"OPENMAAS_DATA_DIR": str(folder), "OPENMAAS_ADMIN_KEY": KEY,
           "OPENMAAS_DATABASE_URL": url or ""}  # fmt: skip
    base = f"http://127.0.0.1:{port}"
    serve = [*OPENMAAS, "serve", "--port", str(port)]
    with (
        server(serve, f"{base}/health", folder / "log", env=env),
        httpx.Client(base_url=base, headers={"Authorization": f"Bearer {KEY}"}) as client,
    ):
        path = f"/v1/tenants/tenant-7/statements/{MONTH}"
        lines.append(_second("… over HTTP", timed(lambda: client.get(path).raise_for_status())))
    for by in (["tenant"], ["tenant", "model"], ["day"]):
        took = timed(lambda by=by: usage.sums(database, usage.period("2026-01", "2026-12"), by))
        lines.append(_second(f"a year's sums by {' and '.join(by)}", took, None))
    took = timed(lambda: usage.rows(database, month, "tenant-7", limit=1000), 3)
    lines.append(_second("a page of 1,000 rows of one tenant", took, None))
    began = time.perf_counter()
    count = usage.write_parquet(database, month, folder / "month.parquet")
    rate = count / (time.perf_counter() - began)
    lines.append(
        [f"rows exported a second ({count:,} of a month, Parquet)", report.number(rate), ""]
    )
    return lines


def _second(what: str, seconds: float, bar: float | None = BAR) -> list[str]:
    told = "" if bar is None else f"{'meets' if seconds <= bar else 'MISSES'} ≤ {bar:g} s"
    return [what, f"{seconds * 1000:.1f} ms", told]


if __name__ == "__main__":
    main()

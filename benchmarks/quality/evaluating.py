"""What evaluations share: a server, its client, and the page of what they find."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import peers
import report
from quality.tables import Table, renewed
from serve import Model, openmaas

from openmaas.client import Client


def run(
    told: str,
    evaluations: Mapping[str, Callable[[Client], Table]],
    models: Sequence[str],
    page: Path,
    head: str,
) -> None:
    """The command that an evaluation is.

    Args:
        told: what ``--help`` says.
        models: of the catalog, which the server has.
        head: of the page, with a place for ``minutes``.
    """
    parser = argparse.ArgumentParser(description=told)
    parser.add_argument("--cache", type=Path, default=peers.DEFAULT_CACHE, help="for models")
    parser.add_argument(
        "--only", choices=evaluations, action="append", help="its section alone; repeatable"
    )
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    began = time.monotonic()
    tables = []
    with (
        openmaas(cache, [Model(name) for name in models]) as served,
        Client(served.url, served.key, timeout=600) as client,
    ):
        for name in chosen.only or evaluations:
            print(f"{name} …", flush=True)
            tables.append(evaluations[name](client))
            report.table(tables[-1].title, tables[-1].header, tables[-1].rows)
    whole = head.format(minutes=(time.monotonic() - began) / 60)
    page.write_text(renewed(page.read_text() if chosen.only else whole, tables))
    print(f"written: {page}")

"""Erases a tenant and kills itself at the Nth thing that it does to disk or database.

Run as a program: ``erasing_child.py DATA TENANT N [DATABASE_URL]``. What is done is counted where
the program touches what lasts: before and after each transaction that writes, and before and after
each file or folder goes. N = 0 counts, prints how many there are, and kills nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openmaas.app import open_privacy, open_store
from openmaas.config import load
from openmaas.database import Database
from openmaas.privacy.eraser import erase_alone
from tests.stores import ME


class Counter:
    def __init__(self, fatal: int) -> None:
        self.done = 0
        self._fatal = fatal

    def count(self) -> None:
        self.done += 1
        if self.done == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.count()
            answer = real(*arguments, **named)
            self.count()
            return answer

        setattr(owner, name, counted)


def main(data: str, tenant: str, fatal: int, url: str | None) -> None:
    settings = load(None, {}, {"data_dir": data, "database_url": url})
    store = open_store(settings)
    privacy = open_privacy(settings, store)
    counter = Counter(fatal)
    write = Database.write

    @contextlib.contextmanager
    def counted(self: Database) -> Iterator[Any]:
        counter.count()
        with write(self) as connection:
            yield connection
            counter.count()  # all statements are done, and nothing is committed
        counter.count()

    Database.write = counted  # type: ignore[method-assign]
    counter.around(Database, "scrub")
    counter.around(shutil, "rmtree")
    counter.around(Path, "unlink")
    counter.around(Path, "rename")
    one = privacy.erasures.request(tenant, ME)
    erase_alone(one.id, privacy.erasures, privacy.erasing, privacy.halting)
    store.database.close()
    print(counter.done)


if __name__ == "__main__":
    _, folder, name, number, *rest = sys.argv
    main(folder, name, int(number), rest[0] if rest else None)

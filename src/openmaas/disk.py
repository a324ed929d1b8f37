"""What is safely on the disk, and what the disk has no room for."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from openmaas.errors import StorageFull

SPARE_BYTES = 64 << 20  # left free for the database, whatever is stored


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Raises StorageFull where the operating system says that the disk or a quota is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull("The disk is full; free some space and try again.") from error
        raise


def need_space(folder: Path, size: int) -> None:
    """Refuses early what would fill the disk.

    Raises:
        StorageFull: fewer than ``size`` bytes (and a reserve) are free.
    """
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        raise StorageFull(
            f"{size + SPARE_BYTES:,} bytes are needed on the disk; {free:,} are free."
        )


def sync_folder(folder: Path) -> None:
    """Has the names in a folder survive a crash."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def put_in_place(folder: Path, target: Path) -> None:
    """Gives a finished folder its name; where somebody else made the same one meanwhile, theirs
    stays, and this one is the caller's to remove."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    sync_folder(target.parent)

"""Where sealed things lie unsealed while a process works with them: in memory, as files.

Child processes have no keys. What one is to read is laid there before it starts, in a folder of its
own that only this user may open, and is gone as soon as it has ended. A tmpfs has no disk behind
it, but for swap, of which ``openmaas doctor`` tells.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from openmaas.config import Settings
from openmaas.errors import ConfigurationError, StorageFull

SHARED = Path("/dev/shm")  # noqa: S108  whose folders are made with care
SPARE_BYTES = 16 << 20  # left free for others


class Memory:
    """All methods block.

    Args:
        folder: for everything; made when it is first needed.
        any_disk: the operator says that it need not be a tmpfs.
    """

    def __init__(self, folder: Path, *, any_disk: bool = False) -> None:
        self.folder = folder
        self._any_disk = any_disk

    def path(self, *names: str) -> Path:
        """Where something is, if it is there. The names are ours."""
        return self.folder.joinpath(*names)

    def make(self, *names: str) -> Path:
        """A folder that stays until ``remove``; one that is there is left as it is.

        Raises:
            ConfigurationError: there is no place in memory.
            StorageFull
        """
        self._prepare()
        made = self.folder
        with self.errors():
            for name in names:
                made = made / name
                made.mkdir(mode=0o700, exist_ok=True)
        return made

    def remove(self, *names: str) -> None:
        """What is not there is removed."""
        shutil.rmtree(self.path(*names), ignore_errors=True)

    @contextlib.contextmanager
    def view(self, kind: str) -> Iterator[Path]:
        """A new folder, removed afterwards.

        Raises:
            ConfigurationError, StorageFull: as ``make``.
        """
        name = secrets.token_hex(8)
        made = self.make(kind, name)
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def need(self, size: int) -> None:
        """Refuses early what would not fit.

        Raises:
            StorageFull: fewer than ``size`` bytes (and a reserve) are free.
        """
        self._prepare()
        if shutil.disk_usage(self.folder).free < size + SPARE_BYTES:
            raise self.full(size + SPARE_BYTES)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raises StorageFull where the memory is used up."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self.full() from error

    def full(self, needed: int = 0) -> StorageFull:
        """What to tell where there is no room.

        Args:
            needed: bytes, where that is known.
        """
        usage = shutil.disk_usage(self.folder)
        want = f"{needed:,} bytes are needed in" if needed else "there is no room in"
        return StorageFull(
            f"{want} {self.folder}, where what is sealed lies unsealed while it is worked with; "
            f"{usage.free:,} of {usage.total:,} are free. Give it more (mount -o remount,size=… "
            f"{SHARED}), or set memory_dir"
        )

    def sweep(self, *kept: str) -> None:
        """Removes all that an earlier server left but what has these names. Call it while nothing
        works with it."""
        if self.folder.is_symlink() or not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def leave(self) -> None:
        """Removes folders in which nothing is."""
        for folder in [*(self.folder.iterdir() if self.folder.is_dir() else ()), self.folder]:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _prepare(self) -> None:
        """
        Raises:
            ConfigurationError: it is another's, or on a disk.
        """
        try:
            with contextlib.suppress(FileExistsError):
                self.folder.mkdir(mode=0o700, parents=self._any_disk)
            found = os.lstat(self.folder)
        except OSError as error:
            raise ConfigurationError(
                f"{self.folder} cannot be made ({error.strerror}): what is sealed must lie there "
                "unsealed while it is worked with; set memory_dir to a folder on a tmpfs"
            ) from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise ConfigurationError(
                f"{self.folder} is not a folder of this user's alone: remove it, or set memory_dir"
            )
        if not self._any_disk and not in_memory(self.folder):
            raise ConfigurationError(
                f"{self.folder} is not on a tmpfs, so that what is sealed would lie on a disk "
                "unsealed; set memory_dir to a folder on a tmpfs"
            )


def open_memory(settings: Settings) -> Memory:
    """Where the settings say, or a folder of this data folder's under /dev/shm."""
    if settings.memory_dir is not None:
        folder = Path(settings.memory_dir).expanduser().absolute() / _name(settings)
        return Memory(folder, any_disk=True)
    return Memory(SHARED / _name(settings))


def in_memory(path: Path) -> bool:
    """Whether a folder (or the nearest above it that is there) is on a tmpfs."""
    while not path.exists():
        path = path.parent
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                return after.split()[0] in ("tmpfs", "ramfs")
    return False


def swaps() -> bool:
    """Whether this machine may write memory to a disk."""
    with contextlib.suppress(OSError):
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    return False


def _name(settings: Settings) -> str:
    digest = hashlib.sha256(str(settings.data_path).encode()).hexdigest()[:16]
    return f"openmaas-{os.getuid()}-{digest}"

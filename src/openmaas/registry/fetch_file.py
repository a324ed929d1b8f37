"""``file:`` sources: copied first, so that nobody changes them while they are read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from openmaas.disk import need_space
from openmaas.errors import ArtifactRefused, SourceUnavailable
from openmaas.registry.artifacts import CHUNK
from openmaas.registry.fetching import MAX_BYTES, MAX_FILES, MAX_LISTED, Progress, Wanted

# Left out of a folder: code, and the formats that are pickles or may hold one.
_LEFT_OUT = {".py", ".pyc", ".sh", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".h5"}
_LEFT_OUT |= {".npy", ".npz", ".msgpack", ".tflite", ".md", ".lock", ".gitattributes"}
_WEIGHTS_BY_NAME = ("pytorch_model", "training_args", "optimizer", "scheduler", "rng_state")


def fetch(wanted: Wanted, folder: Path, progress: Progress) -> Path:
    """Copies the file, or the plain files of the folder, into ``folder``.

    Raises:
        SourceUnavailable: there is no such file or folder.
        ArtifactRefused: a folder with a link in it, or of too many or too large files.
    """
    path = Path(wanted.source.removeprefix("file:"))
    if not path.is_absolute():
        if wanted.relative_to is None:
            raise SourceUnavailable(f"{wanted.source}: give the whole path.")
        path = wanted.relative_to / path
    if path.is_dir():
        target = folder / "model"
        names = list(_wanted(path))
        total = sum((path / name).stat().st_size for name in names)
        pairs = [(path / name, target / name) for name in names]
        target.mkdir()
    elif path.is_file():
        target = folder / path.name
        total = path.stat().st_size
        pairs = [(path, target)]
    else:
        raise SourceUnavailable(f"There is no file or folder {path}.")
    if total > MAX_BYTES:
        raise ArtifactRefused(f"{path} is larger than {MAX_BYTES >> 30} GiB.")
    need_space(folder, total)
    done = 0
    for old, new in pairs:
        new.parent.mkdir(exist_ok=True)
        for copied in _copy(old, new, follow=not path.is_dir()):
            done += copied
            progress(done, total, f"copying {old.name}")
    return target


def _wanted(folder: Path) -> Iterator[str]:
    listed = taken = 0
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder)
        # One level down is as deep as any layout of models goes.
        folders[:] = (
            [name for name in folders if not name.startswith(".")] if inside == Path() else []
        )
        present = set(files)
        for name in sorted(files):
            listed += 1
            if listed > MAX_LISTED:
                raise ArtifactRefused(f"{folder} holds too many files for one model.")
            if _left_out(name, present):
                continue
            status = (Path(place) / name).lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise ArtifactRefused(
                    f"{inside / name} is a link, or linked to from elsewhere; push plain copies."
                )
            taken += 1
            if taken > MAX_FILES:
                raise ArtifactRefused(f"{folder} holds more than {MAX_FILES} files of a model.")
            yield (inside / name).as_posix()


def _left_out(name: str, present: set[str]) -> bool:
    path = Path(name)
    if name.startswith(".") or path.suffix.lower() in _LEFT_OUT:
        return True
    weights = path.suffix == ".bin" and path.with_suffix(".xml").name not in present
    return weights and name.startswith(_WEIGHTS_BY_NAME)


def _copy(old: Path, new: Path, *, follow: bool) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with os.fdopen(os.open(old, flags), "rb", buffering=0) as source, open(new, "xb") as out:
        while chunk := source.read(CHUNK):
            out.write(chunk)
            yield len(chunk)

"""Folders of images in a ZIP: ``class/file.png``, below ``train/``, ``test/`` if that is told."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.registry import archives
from openmaas.training.data import Description, Preview
from openmaas.training.formats import splits
from openmaas.training.formats.arrays import ArrayFile, finish
from openmaas.training.formats.bounds import BadRows, Budget
from openmaas.training.formats.hiding import Hiding
from openmaas.training.options import Options

ENTRIES = 90_000
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
PIXELS = 50_000_000  # of one image
BYTES = 64 << 20  # of one file
SIDE = 512  # beyond it a size is to be said
GRAY = ("1", "L", "LA", "I", "I;16", "F")
BATCH = 64


class Picture(NamedTuple):
    entry: zipfile.ZipInfo
    number: int  # from 1, in the order of names
    label: str
    split: int | None


def read(
    path: Path, out: Path, options: Options, hiding: Hiding | None = None
) -> tuple[Description, Preview]:
    """
    Raises:
        InvalidRequest: there are no images in folders, or too large ones.
        ArtifactRefused: the archive is damaged, or built to exhaust its reader.
        ImportError: Pillow is not installed.
    """
    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = PIXELS
    warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
    if isinstance(options.split, str):
        raise InvalidRequest("folders of images have no column that says the split")
    bad = BadRows(options)
    with archives.opened(path, ENTRIES) as archive:
        pictures = _pictures(archive)
        shapes = {one.number: shape for one in pictures if (shape := _shape(archive, one, bad))}
        good = [one for one in pictures if one.number in shapes]
        if not good:
            bad.check(0)
        size, channels = _form([shapes[one.number] for one in good], options)
        # The numbers may be far more than the files; a budget of their own kind: bytes on disk.
        Budget(path.stat().st_size).take(len(good) * size[0] * size[1] * channels)
        return _write(archive, good, (size, channels), out, options, bad, hiding or Hiding())


def _pictures(archive: zipfile.ZipFile) -> list[Picture]:
    entries = sorted(
        (one for one in archive.infolist() if not one.is_dir() and not _litter(one.filename)),
        key=lambda one: one.filename,
    )
    parts = [PurePosixPath(one.filename).parts for one in entries]
    told = bool(parts) and all(len(one) > 2 and one[-3].lower() in splits.NAMES for one in parts)
    found = []
    for number, (entry, path) in enumerate(zip(entries, parts, strict=True), 1):
        if not path[-1].lower().endswith(ENDINGS):
            raise InvalidRequest(
                f"{entry.filename[:100]!r} is no image; there are to be {', '.join(ENDINGS)}"
            )
        if len(path) < 2:
            raise InvalidRequest(f"{entry.filename[:100]!r} is in no folder, which says its class")
        split = splits.NAMES[path[-3].lower()] if told else None
        found.append(Picture(entry, number, path[-2], split))
    if not found:
        raise InvalidRequest("it holds no image")
    if len({one.label for one in found}) < 2:
        raise InvalidRequest(
            f"all images are in folders called {found[0].label[:100]!r}: there is one class only"
        )
    return found


def _litter(name: str) -> bool:
    """What file managers leave."""
    parts = PurePosixPath(name).parts
    return any(one.startswith((".", "__MACOSX")) for one in parts) or parts[-1] == "Thumbs.db"


def _bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> io.BytesIO:
    if entry.file_size > BYTES:
        raise InvalidRequest(f"it has over {BYTES >> 20} MiB")
    with archive.open(entry) as file:
        raw = file.read(BYTES + 1)
    if len(raw) != entry.file_size:
        raise InvalidRequest("its length is not what the archive says")
    return io.BytesIO(raw)


def _shape(archive: zipfile.ZipFile, picture: Picture, bad: BadRows) -> tuple[int, int, int] | None:
    """Height, width and channels by an image's header; None: it is bad."""
    try:
        with _open(archive, picture) as image:
            width, height = image.size
            return height, width, 1 if image.mode in GRAY else 3
    except Exception as error:  # a decoder raises what it likes
        _tell(bad, picture, error)
        return None


def _open(archive: zipfile.ZipFile, picture: Picture) -> Any:
    from PIL import Image

    image = Image.open(_bytes(archive, picture.entry), formats=FORMATS)
    if image.width * image.height > PIXELS:
        raise InvalidRequest(f"it has {image.width} × {image.height} pixels")
    return image


def _form(shapes: list[tuple[int, int, int]], options: Options) -> tuple[tuple[int, int], int]:
    if not shapes:
        raise InvalidRequest("no image of it can be read")
    channels = options.channels or max(shape[2] for shape in shapes)
    if options.image_size is not None:
        return options.image_size, channels
    sizes = Counter(shape[:2] for shape in shapes)
    height, width = min(sizes, key=lambda size: (-sizes[size], size))
    if max(height, width) > SIDE:
        raise InvalidRequest(
            f"most images have {height} × {width} pixels; say to what image_size (height, width) "
            "all are to be made"
        )
    return (height, width), channels


def _write(
    archive: zipfile.ZipFile,
    pictures: list[Picture],
    form: tuple[tuple[int, int], int],
    out: Path,
    options: Options,
    bad: BadRows,
    hiding: Hiding,
) -> tuple[Description, Preview]:
    (height, width), channels = form
    images = ArrayFile(out, "image", "|u1", [height, width, channels])
    classes = sorted({one.label for one in pictures})
    counts = Counter(one.label for one in pictures)
    names = hiding.names("label", {name: counts[name] for name in classes})
    label = ArrayFile(out, "label", "<i8", [], names)
    told: list[int] = []
    for start in range(0, len(pictures), BATCH):
        done = []
        for one in pictures[start : start + BATCH]:
            try:
                done.append((_pixels(archive, one, form), one))
            except Exception as error:  # a decoder raises what it likes
                _tell(bad, one, error)
        if done:
            images.write(np.stack([pixels for pixels, _ in done]))
            label.write(np.array([classes.index(one.label) for _, one in done], np.int64))
            told += [one.split for _, one in done if one.split is not None]
    bad.check(images.rows)
    split = np.array(told, np.uint8) if told else None
    return finish(
        [images, label], out, options, "images",
        classes=names, split=split, bad=bad, hiding=hiding,
    )  # fmt: skip


def _pixels(
    archive: zipfile.ZipFile, picture: Picture, form: tuple[tuple[int, int], int]
) -> NDArray[np.uint8]:
    """[height, width, channels] of 0 to 255, upright."""
    from PIL import Image, ImageOps

    (height, width), channels = form
    with _open(archive, picture) as image:
        if image.mode.startswith("I"):  # 16 bits, which a plain conversion would cut off
            wide = np.asarray(image, np.float64)
            upright = Image.fromarray((wide / 257).clip(0, 255).astype(np.uint8))
        else:
            upright = ImageOps.exif_transpose(image)
        made = upright.convert("L" if channels == 1 else "RGB")
        if made.size != (width, height):
            made = made.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(made, np.uint8).reshape(height, width, channels)


def _tell(bad: BadRows, picture: Picture, error: Exception) -> None:
    words = error.message if isinstance(error, InvalidRequest) else str(error) or "it is damaged"
    bad.add(picture.number, f"{picture.entry.filename[:100]}: {words.splitlines()[0][:200]}")

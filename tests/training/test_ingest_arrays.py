"""NPZ and folders of images."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from tests.training.reading import Read

from openmaas.errors import ArtifactRefused, InvalidRequest


def npz(*, packed: bool = True, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return file.getvalue()


def zipped(entries: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(header: bytes, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header + data


# --- NPZ ----------------------------------------------------------------------------------------

DTYPES = st.sampled_from(["?", "u1", "<i2", ">i4", "<i8", "<f2", ">f4", "<f8", "|i1"])


@settings(max_examples=60, deadline=None)
@given(
    array=DTYPES.flatmap(
        lambda one: hnp.arrays(one, hnp.array_shapes(max_dims=4, max_side=5), fill=st.nothing())
    ),
    fortran=st.booleans(),
    packed=st.booleans(),
)
def test_arrays_come_back(array: NDArray[Any], fortran: bool, packed: bool) -> None:
    given_ = np.asfortranarray(array) if fortran else array
    with tempfile.TemporaryDirectory() as folder:
        read = Read("npz", npz(x=given_, packed=packed), Path(folder))
        found = read.data.array("x")
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype.newbyteorder("=")
        (column,) = read.description.columns
        assert column.shape == list(array.shape[1:])
        plain = Read("npz", npz(x=np.ascontiguousarray(array), packed=not packed), Path(folder))
        assert plain.description.fingerprint == read.description.fingerprint


def test_numbers_whose_sum_is_none(tmp_path: Path) -> None:
    x = np.array([1.7e308, 1.7e308, -1.0])
    (column,) = Read("npz", npz(x=x), tmp_path).description.columns
    assert (column.minimum, column.maximum, column.mean) == (-1, 1.7e308, None)


def test_labels_of_arrays(tmp_path: Path) -> None:
    x, y = np.arange(60, dtype=np.float32).reshape(30, 2), np.arange(30) % 3
    read = Read("npz", npz(x=x, y=y), tmp_path)
    assert read.description.target == "y"
    columns = {one.name: one for one in read.description.columns}
    assert [(one.value, one.rows) for one in columns["y"].values] == [
        ("0", 10), ("1", 10), ("2", 10)]  # fmt: skip
    assert (columns["x"].minimum, columns["x"].maximum, columns["x"].mean) == (0, 59, 29.5)
    assert read.description.splits == {"train": 21, "validation": 3, "test": 6}
    assert sorted(np.array(y)[np.array(read.split()) == 2].tolist()) == [0, 0, 1, 1, 2, 2]
    assert read.preview.rows[1] == [[2.0, 3.0], 1]
    named = Read("npz", npz(x=x, y=np.array(["b", "a", "ç"])[y]), tmp_path)
    assert named.description.classes == ["a", "b", "ç"]
    assert named.data.array("y").tolist() == np.array([1, 0, 2])[y].tolist()
    assert named.description.columns[1].values[0].value == "a"


def test_an_array_that_says_the_split(tmp_path: Path) -> None:
    x, y = np.zeros((4, 2)), np.arange(4) % 2
    for told in (np.array(["train", "test", "val", "train"]), np.array([0, 2, 1, 0])):
        read = Read("npz", npz(x=x, y=y, split=told), tmp_path, split="split")
        assert read.split() == [0, 2, 1, 0]
        assert [one.name for one in read.description.columns] == ["x", "y"]
    with pytest.raises(InvalidRequest, match="named by the option split"):
        Read("npz", npz(x=x, y=y, split=told), tmp_path)
    with pytest.raises(InvalidRequest, match="train, validation or test"):
        Read("npz", npz(x=x, y=y, split=np.arange(4)), tmp_path, split="split")


def test_names_that_say_the_split(tmp_path: Path) -> None:
    """As Keras's own data sets come: mnist.npz."""
    x, y = np.arange(40, dtype=np.float32).reshape(20, 2), np.array(list("abcde") * 4)
    arrays = {"x_test": x[15:], "x_train": x[:15], "y_test": y[15:], "y_train": y[:15]}
    read = Read("npz", npz(**arrays), tmp_path)
    np.testing.assert_array_equal(read.data.array("x"), x)
    assert [read.data.rows(name).tolist() for name in ("train", "validation", "test")] == [
        list(range(15)), [], list(range(15, 20)),
    ]  # fmt: skip
    assert [read.description.classes[at] for at in read.data.array("y")] == y.tolist()
    for more, words in (
        ({"y_test": y[14:]}, "same number of rows: x_test 5, y_test 6"),
        ({"x_test": x[15:, :1]}, "unlike shape"),
        ({"x_test": x[15:].astype(np.float64)}, "unlike shape or dtype"),
        ({"z": x}, "same number of rows"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            Read("npz", npz(**arrays | more), tmp_path)
    with pytest.raises(InvalidRequest, match="leave out the option split"):
        Read("npz", npz(**arrays), tmp_path, split={"test": 0.5})


def test_numbers_that_are_none_are_counted(tmp_path: Path) -> None:
    x = np.array([[1, np.nan], [np.inf, 2], [3, 4]])
    (column,) = Read("npz", npz(x=x), tmp_path).description.columns
    assert (column.missing, column.minimum, column.maximum, column.mean) == (1, 1, 4, 2.5)


HEADER = "{'descr': %s, 'fortran_order': False, 'shape': %s}"
LIES = {
    "more rows than bytes": (HEADER % ("'<f8'", "(1000000,)"), bytes(80)),
    "fewer rows than bytes": (HEADER % ("'<f8'", "(2,)"), bytes(80)),
    "rows beyond 64 bits": (HEADER % ("'<f8'", f"({2**61},)"), bytes(80)),
    "a product that overflows": (HEADER % ("'<f8'", f"({2**32}, {2**32})"), b""),
    "a negative length": (HEADER % ("'<f8'", "(-1,)"), bytes(8)),
    "a length that is none": (HEADER % ("'<f8'", "(True,)"), bytes(8)),
    "a float length": (HEADER % ("'<f8'", "(1.0,)"), bytes(8)),
    "no rows": (HEADER % ("'<f8'", "(0,)"), b""),
    "an empty row": (HEADER % ("'<f8'", "(5, 0)"), b""),
    "no dimension": (HEADER % ("'<f8'", "()"), bytes(8)),
    "many dimensions": (HEADER % ("'<f8'", str((1,) * 33)), bytes(8)),
    "objects": (HEADER % ("'|O'", "(1,)"), b"\x80\4N."),
    "a record": (HEADER % ("[('a', '<f8')]", "(1,)"), bytes(8)),
    "complex": (HEADER % ("'<c16'", "(1,)"), bytes(16)),
    "dates": (HEADER % ("'<M8[s]'", "(1,)"), bytes(8)),
    "raw bytes": (HEADER % ("'|V8'", "(1,)"), bytes(8)),
    "long texts": (HEADER % ("'<U100000'", "(1,)"), bytes(400_000)),
    "code": ("__import__('os').system('touch canary')", bytes(8)),
    "a call in it": ("{'descr': '<f8', 'fortran_order': False, 'shape': (int('1'),)}", bytes(8)),
    "nesting": ("(" * 5000 + ")" * 5000, bytes(8)),
    "no keys": ("{}", bytes(8)),
    "a length of its own": ("x" * 20_000, bytes(8)),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("version", [b"\1\0", b"\2\0"])
def test_headers_that_lie(lie: str, version: bytes, tmp_path: Path) -> None:
    header, data = LIES[lie]
    with pytest.raises(InvalidRequest):
        Read("npz", zipped({"x.npy": npy(header.encode(), data, version)}), tmp_path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "0 arrays"),
        ({"x.txt": b"hello"}, "no array of a plain name"),
        ({"a/x.npy": b""}, "no array of a plain name"),
        ({".npy": b""}, "no array of a plain name"),
        ({"x.npy": b""}, "no array of NumPy's"),
        ({"x.npy": b"\x80\4N."}, "no array of NumPy's"),
        ({"x.npy": npy(b"x", version=b"\7\0")}, "no array of NumPy's"),
    ],
    ids=lambda one: str(one)[:14],
)
def test_archives_that_are_no_npz(entries: dict[str, bytes], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Read("npz", zipped(entries), tmp_path)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros(3), "y": np.zeros(4)}, "same number of rows: x 3, y 4"),
        ({"x": np.zeros(3), "y": np.ones(3, int)}, "nothing to learn"),
        ({"x": np.array(["a", "b"])}, "texts are for a table"),
        ({"y": np.array(["a", ""])}, "without a text"),
    ],
    ids=lambda one: str(one)[:14],
)
def test_arrays_that_do_not_fit(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Read("npz", npz(**arrays), tmp_path)


def test_options_of_arrays(tmp_path: Path) -> None:
    content = npz(x=np.zeros(3))
    for options in ({"delimiter": ","}, {"bad_rows": "skip"}, {"kinds": {"x": "number"}}):
        with pytest.raises(InvalidRequest, match="not of npz"):
            Read("npz", content, tmp_path, **options)
    with pytest.raises(InvalidRequest, match="target names 'z'"):
        Read("npz", content, tmp_path, target="z")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 255), st.booleans())
@example(at=29, change=20, cut=False)  # names are longer than they are: the numbers end early
def test_damaged_npz_is_refused_or_read(at: int, change: int, cut: bool) -> None:
    content = bytearray(npz(x=np.arange(600.0).reshape(60, 10), packed=False))
    at %= len(content)
    content[at] ^= change
    content = content[:at] if cut else content
    with tempfile.TemporaryDirectory() as folder:
        try:
            read = Read("npz", bytes(content), Path(folder))
        except (InvalidRequest, ArtifactRefused):
            return
        assert not cut
        assert read.description.rows > 0


# --- images -------------------------------------------------------------------------------------


def picture(
    colour: Any, size: tuple[int, int] = (8, 6), mode: str = "RGB", form: str = "PNG", **how: Any
) -> bytes:
    """Width and height, as Pillow has them."""
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, form, **how)
    return file.getvalue()


def test_folders_are_classes(tmp_path: Path) -> None:
    red, blue = picture((255, 0, 0)), picture((0, 0, 255))
    files = {f"root/red/{n}.png": red for n in range(10)}
    files |= {f"root/blue/{n}.jpg": picture((0, 0, 255), form="JPEG") for n in range(5)}
    files |= {"root/blue/x.bmp": picture((0, 0, 255), form="BMP"),
              "root/blue/y.webp": picture((0, 0, 255), form="WEBP", lossless=True),
              "root/.DS_Store": b"x", "__MACOSX/root/red/._0.png": b"x",
              "root/blue/z.PNG": blue}  # fmt: skip
    read = Read("images", zipped(files), tmp_path)
    assert read.description.rows == 18
    assert read.description.classes == ["blue", "red"]
    assert read.description.target == "label"
    image, label = read.data.array("image"), read.data.array("label")
    assert (image.shape, image.dtype, label.dtype) == ((18, 6, 8, 3), np.uint8, np.int64)
    assert np.abs(image[label == 0].astype(int) - [0, 0, 255]).max() <= 2  # of JPEG
    assert (image[label == 1] == [255, 0, 0]).all()
    values = read.description.columns[1].values
    assert [(one.value, one.rows) for one in values] == [("red", 10), ("blue", 8)]


def test_the_order_and_the_packing_say_nothing(tmp_path: Path) -> None:
    files = {f"{'ab'[n % 2]}/{n}.png": picture((n, 0, 0)) for n in range(10)}
    first = Read("images", zipped(files), tmp_path)
    turned = zipped(dict(reversed(files.items())), zipfile.ZIP_STORED)
    assert Read("images", turned, tmp_path).description.fingerprint == first.description.fingerprint


def test_sizes_and_channels(tmp_path: Path) -> None:
    gray = {f"{'ab'[n % 2]}/{n}.png": picture(n, (4, 4), "L") for n in range(4)}
    read = Read("images", zipped(gray), tmp_path)
    assert read.data.array("image").shape == (4, 4, 4, 1)
    mixed = gray | {"a/large.png": picture((9, 9, 9), (40, 20))}
    assert Read("images", zipped(mixed), tmp_path).data.array("image").shape == (5, 4, 4, 3)
    chosen = Read("images", zipped(mixed), tmp_path, image_size=(2, 3), channels=1)
    assert chosen.data.array("image").shape == (5, 2, 3, 1)
    large = {f"{'ab'[n]}/{n}.png": picture(0, (600, 10), "L") for n in range(2)}
    with pytest.raises(InvalidRequest, match=r"10 × 600 pixels; say to what image_size"):
        Read("images", zipped(large), tmp_path)
    deep = {f"{'ab'[n]}/{n}.png": picture(65535 * n, (2, 2), "I;16") for n in range(2)}
    assert Read("images", zipped(deep), tmp_path).data.array("image").max(axis=(1, 2, 3)).tolist(
    ) == [0, 255]  # fmt: skip


def test_folders_that_say_the_split(tmp_path: Path) -> None:
    files = {f"{part}/{label}/{n}.png": picture((n, 0, 0)) for n in range(3)
             for part in ("train", "test", "val") for label in "ab"}  # fmt: skip
    read = Read("images", zipped(files), tmp_path)
    assert read.description.splits == {"train": 6, "validation": 6, "test": 6}
    assert read.description.classes == ["a", "b"]


def test_bad_images(tmp_path: Path) -> None:
    files = {f"{'ab'[n % 2]}/{n}.png": picture((n, 0, 0)) for n in range(8)}
    whole = picture((1, 2, 3), (64, 64), form="PNG")
    files |= {"a/cut.png": whole[: len(whole) // 2], "b/other.png": b"no image"}
    with pytest.raises(InvalidRequest, match=r"(?s)2 rows are bad.*a/cut.png.*b/other.png"):
        Read("images", zipped(files), tmp_path)
    read = Read("images", zipped(files), tmp_path, bad_rows="skip", max_bad_fraction=0.3)
    assert read.description.rows == len(read.data.array("image")) == 8
    assert read.description.bad_rows == 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no image"),
        ({"0.png": picture(0)}, "in no folder"),
        ({"a/0.png": picture(0)}, "one class only"),
        ({"a/0.gif": b"", "b/0.png": picture(0)}, "is no image"),
        ({"a/0.png": picture(0, form="GIF"), "b/0.png": picture(0, form="TIFF")}, "2 rows are bad"),
    ],
    ids=lambda one: str(one)[:14],
)
def test_what_is_no_folder_of_images(files: dict[str, bytes], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Read("images", zipped(files), tmp_path)

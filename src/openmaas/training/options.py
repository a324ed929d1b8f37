"""How an upload is to be read as a data set."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest
from openmaas.training.data import ColumnKind

Format = Literal["csv", "jsonl", "parquet", "npz", "images"]
Name = Annotated[str, Meta(min_length=1, max_length=200)]  # of a column or an array
Part = Annotated[float, Meta(ge=0, lt=1)]
Pixels = Annotated[int, Meta(ge=1, le=4096)]

TABLES: tuple[Format, ...] = ("csv", "jsonl", "parquet")
# options that only some formats have
_OF: dict[str, tuple[Format, ...]] = {
    "kinds": TABLES,
    "delimiter": ("csv",),
    "image_size": ("images",),
    "channels": ("images",),
    "bad_rows": (*TABLES, "images"),
    "max_bad_fraction": (*TABLES, "images"),
}


class Fractions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of all rows; the rest is for training."""

    validation: Part = 0.0
    test: Part = 0.0


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    target: Name | None = None  # None: a column that is called label, target, class, y …
    kinds: dict[Name, ColumnKind] = {}  # of columns whose kind is not to be guessed
    # Fractions by a permutation that the seed makes, alike for each value of a target that is a
    # category; or the column whose values are train, validation and test.
    split: Fractions | Name = Fractions(validation=0.1, test=0.2)
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    bad_rows: Literal["refuse", "skip"] = "refuse"
    max_bad_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.05  # of all rows, with skip
    delimiter: Literal[",", ";", "\t"] | None = None  # None: whichever splits the lines alike
    image_size: tuple[Pixels, Pixels] | None = None  # height, width; None: the most frequent
    channels: Literal[1, 3] | None = None  # None: 3 if an image has colours


def check(options: Options, form: Format) -> None:
    """
    Raises:
        InvalidRequest: an option that means nothing for the format, or a split of everything.
    """
    default = Options()
    for name, formats in _OF.items():
        if getattr(options, name) != getattr(default, name) and form not in formats:
            raise InvalidRequest(f"{name} is an option of {', '.join(formats)}, not of {form}",
                                 param=f"options.{name}")  # fmt: skip
    if options.bad_rows == "refuse" and options.max_bad_fraction != default.max_bad_fraction:
        raise InvalidRequest("max_bad_fraction goes with bad_rows: skip",
                             param="options.max_bad_fraction")  # fmt: skip
    split = options.split
    if isinstance(split, Fractions) and split.validation + split.test >= 1:
        raise InvalidRequest("the fractions of the split leave no row for training",
                             param="options.split")  # fmt: skip
    if isinstance(split, str) and split == options.target:
        raise InvalidRequest("split and target are the same column", param="options.split")


def format_of(name: str, start: bytes) -> Format:
    """The format of an upload by its name, else by its first bytes.

    Raises:
        InvalidRequest: neither tells.
    """
    ending = name.lower().rpartition(".")[2]
    by_ending: dict[str, Format] = {
        "csv": "csv", "tsv": "csv", "tab": "csv", "jsonl": "jsonl", "ndjson": "jsonl",
        "parquet": "parquet", "npz": "npz", "zip": "images",
    }  # fmt: skip
    if ending in by_ending:
        return by_ending[ending]
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return "jsonl"
    raise InvalidRequest(
        "neither the upload's name nor its content tells its format; "
        "format is one of: csv, jsonl, parquet, npz, images",
        param="format",
    )

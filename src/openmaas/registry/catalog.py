"""The models that ``openmaas models pull NAME`` knows by name, read from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from openmaas.errors import ConfigurationError, ModelNotFound

SHIPPED = Path(__file__).parent / "catalog.toml"

_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: _Name
    task: Literal["chat", "embed", "predict", "classify", "translate", "tag"]
    source: _Text  # see ``sources.py``; a relative file: is beside the catalog
    sha256: _Sha256  # of the file, or of the listing of a folder (``sources.digest_of_folder``)
    size: Annotated[int, msgspec.Meta(gt=0)]  # bytes
    licence: _Text
    description: _Text
    # of a classifier that is a head on the source's sentence encoder: a folder beside the catalog
    # with head.json and head.safetensors, and its sources.digest_of_folder
    head: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+(/[a-z0-9_]+)*$")] | None = None
    head_sha256: _Sha256 | None = None
    starter: bool = False  # fetched by ``make serve``
    # a language model's own, where its file does not say them: temperature, top_p, top_k
    generation: dict[Literal["temperature", "top_p", "top_k"], float] = {}


class Catalog:
    """Entries by name, in the order of the file."""

    def __init__(self, entries: list[Entry], folder: Path) -> None:
        self.entries = {entry.name: entry for entry in entries}
        self.folder = folder

    @classmethod
    def read(cls, path: Path = SHIPPED) -> Catalog:
        """
        Raises:
            ConfigurationError: the file cannot be read, or an entry is wrong.
        """
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
            entries = msgspec.convert(raw, _File).model
        except (OSError, ValueError, msgspec.ValidationError) as error:
            raise ConfigurationError(f"{path.name}: {error}") from None
        if len({entry.name for entry in entries}) != len(entries):
            raise ConfigurationError(f"{path.name}: two models have the same name")
        return cls(entries, path.parent)

    def entry(self, name: str) -> Entry:
        """
        Raises:
            ModelNotFound: it is not in the catalog.
        """
        if name not in self.entries:
            known = ", ".join(self.entries)
            raise ModelNotFound(f"no model {name[:64]!r} in the catalog; it has: {known}")
        return self.entries[name]

    def starters(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.starter]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    model: list[Entry]

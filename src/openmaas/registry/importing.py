"""The one way in: a source becomes a stored, verified artifact."""

from __future__ import annotations

from pathlib import Path

import msgspec

from openmaas.errors import ConversionFailed
from openmaas.registry import conversion, sources
from openmaas.registry.artifacts import ArtifactStore, disk_errors, need_space
from openmaas.registry.catalog import Catalog, Entry
from openmaas.registry.fetching import Progress, Wanted, silent
from openmaas.registry.manifest import Manifest
from openmaas.registry.recognise import recognise


def import_model(
    source: str | Path,
    store: ArtifactStore,
    *,
    progress: Progress = silent,
    allow_https: bool = False,
    expect_sha256: str | None = None,
) -> tuple[str, Manifest]:
    """Brings, recognises, converts, verifies and stores a model.

    Args:
        source: see ``sources``; a path stands for a ``file:`` of this machine.

    Returns:
        The artifact's digest and manifest.

    Raises:
        SourceUnavailable, ArtifactRefused, ConversionFailed, StorageFull, Conflict
    """
    text = f"file:{source.absolute()}" if isinstance(source, Path) else source
    wanted = Wanted(source=text, sha256=expect_sha256)
    return _import(wanted, "", store, progress, allow_https, {})


def import_entry(
    entry: Entry,
    catalog: Catalog,
    store: ArtifactStore,
    *,
    progress: Progress = silent,
    allow_https: bool = False,
) -> tuple[str, Manifest]:
    """``import_model`` for a model of the catalog, whose sha256, size and task are known.

    Raises:
        SourceUnavailable, ArtifactRefused, ConversionFailed, StorageFull, Conflict
    """
    wanted = Wanted(
        source=entry.source,
        sha256=entry.sha256,
        size=entry.size,
        relative_to=catalog.folder,
    )
    own = {str(name): value for name, value in entry.generation.items()}
    digest, manifest = _import(wanted, entry.licence, store, progress, allow_https, own)
    if manifest.task != entry.task:
        store.remove(digest)
        raise ConversionFailed(
            f"The catalog says that {entry.name} is for {entry.task}; it is for {manifest.task}."
        )
    return digest, manifest


def _import(
    wanted: Wanted,
    licence: str,
    store: ArtifactStore,
    progress: Progress,
    allow_https: bool,
    generation: dict[str, float],
) -> tuple[str, Manifest]:
    downloads = store.root / ".downloads"
    with (
        sources.fetched(wanted, downloads, progress=progress, allow_https=allow_https) as fetched,
        store.scratch() as scratch,
    ):
        recognised = recognise(fetched.path)
        with disk_errors():
            need_space(scratch, 2 * fetched.size)
            place = scratch / "source"
            place.mkdir()
            moved = fetched.path.rename(place / fetched.path.name)
        inside = recognised.path.relative_to(fetched.path)
        progress(fetched.size, fetched.size, f"converting from {recognised.kind}")
        description = conversion.convert(
            msgspec.structs.replace(recognised, path=moved / inside), scratch, progress
        )
        description = msgspec.structs.replace(
            description, generation=description.generation | generation
        )
        progress(fetched.size, fetched.size, "storing")
        return store.add(
            scratch / "out",
            description,
            source=_recorded(wanted.source),
            source_sha256=fetched.sha256,
            licence=licence,
        )


def _recorded(source: str) -> str:
    """A local path says nothing to others, and the same model has one digest wherever it lay."""
    return f"file:{Path(source).name}" if source.startswith("file:") else source

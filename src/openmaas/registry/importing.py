"""The one way in: a source becomes a stored, verified artifact."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from openmaas.disk import disk_errors
from openmaas.errors import ArtifactRefused, ConversionFailed, SourceUnavailable
from openmaas.registry import conversion, sources
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.catalog import Catalog, Entry
from openmaas.registry.fetching import Progress, Wanted, silent
from openmaas.registry.manifest import Manifest
from openmaas.registry.recognise import Kind, Recognised, recognise
from openmaas.schema import PUBLIC


def import_model(
    source: str | Path,
    store: ArtifactStore,
    *,
    progress: Progress = silent,
    allow_https: bool = False,
    expect_sha256: str | None = None,
    recorded: str | None = None,
    tenant: str = PUBLIC,
) -> tuple[str, Manifest]:
    """Brings, recognises, converts, verifies and stores a model.

    Args:
        source: see ``sources``; a path stands for a ``file:`` of this machine, whose name says
            nothing: what it is, its content tells.
        recorded: what the manifest says of where it came from; ``None``: the source.
        tenant: whose it is: nothing of it is on the disk but sealed.

    Returns:
        The artifact's digest and manifest.

    Raises:
        SourceUnavailable, ArtifactRefused, ConversionFailed, StorageFull, Conflict
    """
    text = f"file:{source.absolute()}" if isinstance(source, Path) else source
    wanted = Wanted(source=text, sha256=expect_sha256)
    return _import(wanted, store, progress, allow_https, recorded=recorded, tenant=tenant)


def import_trained(
    kind: Kind,
    folder: Path,
    store: ArtifactStore,
    *,
    source: str,
    licence: str = "",
    progress: Progress = silent,
    tenant: str = PUBLIC,
) -> tuple[str, Manifest]:
    """Converts, verifies and stores what a trainer left in a folder, which stays as it is.

    Args:
        kind: how the folder is laid out: see the importer of that name.
        source: what the manifest says of where it came from: ``job:`` and an id, for one.
        tenant: as ``import_model``.

    Returns:
        The artifact's digest and manifest.

    Raises:
        ArtifactRefused: a part is missing, damaged or unsafe.
        ConversionFailed: the serving form gives other answers than the trained network did.
        StorageFull
    """
    with store.scratch(tenant) as scratch, store.errors(tenant):
        if any(path.is_symlink() for path in folder.rglob("*")):
            raise ArtifactRefused("The folder has a link in it.")
        size, sha256 = sources.digest_of_folder(folder)
        store.need(scratch, 3 * size, tenant)
        place = Path(shutil.copytree(folder, scratch / "source" / "export"))
        progress(size, size, f"converting from {kind}")
        inside = place / "model.keras" if kind == "keras" else place
        description = conversion.convert(Recognised(kind, inside), scratch, progress)
        progress(size, size, "storing")
        return store.add(
            scratch / "out", description, source=source, source_sha256=sha256, licence=licence,
            tenant=tenant,
        )  # fmt: skip


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
    digest, manifest = _import(wanted, store, progress, allow_https, entry, catalog.folder)
    if manifest.task != entry.task:
        store.remove(digest)
        raise ConversionFailed(
            f"The catalog says that {entry.name} is for {entry.task}; it is for {manifest.task}."
        )
    return digest, manifest


def _import(
    wanted: Wanted,
    store: ArtifactStore,
    progress: Progress,
    allow_https: bool,
    entry: Entry | None = None,
    beside: Path = Path(),
    recorded: str | None = None,
    tenant: str = PUBLIC,
) -> tuple[str, Manifest]:
    with (
        store.scratch(tenant) as scratch,
        sources.fetched(
            wanted,
            scratch / "downloads" if tenant else store.root / ".downloads",
            progress=progress,
            allow_https=allow_https,
        ) as fetched,
    ):
        source, sha256 = recorded or _recorded(wanted.source), fetched.sha256
        if entry is not None and entry.head is not None:
            _put_head(entry, beside / entry.head, fetched.path)
            source = f"{source} + file:{entry.head}"
            sha256 = sources.digest_of_folder(fetched.path)[1]
        recognised = recognise(fetched.path)
        with store.errors(tenant):
            store.need(scratch, 2 * fetched.size, tenant)
            place = scratch / "source"
            place.mkdir()
            moved = fetched.path.rename(place / fetched.path.name)
        inside = recognised.path.relative_to(fetched.path)
        progress(fetched.size, fetched.size, f"converting from {recognised.kind}")
        description = conversion.convert(
            msgspec.structs.replace(recognised, path=moved / inside), scratch, progress
        )
        if entry is not None:
            own = {str(name): value for name, value in entry.generation.items()}
            description = msgspec.structs.replace(
                description, generation=description.generation | own
            )
        progress(fetched.size, fetched.size, "storing")
        return store.add(
            scratch / "out",
            description,
            source=source,
            source_sha256=sha256,
            licence=entry.licence if entry is not None else "",
            tenant=tenant,
        )


def _put_head(entry: Entry, head: Path, encoder: Path) -> None:
    """Lays a catalog entry's head beside the encoder that was fetched.

    Raises:
        SourceUnavailable: the head is missing or has other bytes than the catalog says.
        ArtifactRefused: the encoder is no folder, or has a head of its own.
    """
    if not head.is_dir() or sources.digest_of_folder(head)[1] != entry.head_sha256:
        raise SourceUnavailable(f"The head of {entry.name} is missing or damaged.")
    if not encoder.is_dir() or any((encoder / path.name).exists() for path in head.iterdir()):
        raise ArtifactRefused(f"The source of {entry.name} is no encoder without a head.")
    with disk_errors():
        for path in head.iterdir():
            shutil.copyfile(path, encoder / path.name)


def _recorded(source: str) -> str:
    """A local path says nothing to others, and the same model has one digest wherever it lay."""
    return (
        f"file:{Path(source.removeprefix('file:')).name}" if source.startswith("file:") else source
    )

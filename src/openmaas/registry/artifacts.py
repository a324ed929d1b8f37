"""Artifacts by digest: plain files that the server made, checked byte by byte when opened."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from openmaas.disk import disk_errors, need_space, put_in_place, sync_folder
from openmaas.errors import ArtifactRefused, ModelNotFound
from openmaas.registry.manifest import (
    MANIFEST_BYTES,
    MANIFEST_NAME,
    MAX_FILES,
    Description,
    Manifest,
    StoredFile,
    check_digest,
    check_name,
    decode,
    digest_of,
    encode,
)
from openmaas.schema import PUBLIC

if TYPE_CHECKING:
    from openmaas.registry.private import PrivateArtifacts

CHUNK = 1 << 20
MAX_ARTIFACT_BYTES = 512 << 30
STAGING_SECONDS = 86_400.0  # after which what an import left is no import that runs
REMOVED_SECONDS = 60.0  # younger than that, an import may be about to use it anew
UNUSED_SECONDS = 3600.0  # after which an artifact without a version is not about to get one


class ArtifactStore:
    """A folder ``root`` with one folder per artifact, named by the digest's hex digits.

    An artifact appears by one rename of a folder whose files are already on disk, so a
    crash leaves either all of it or none; ``collect`` removes what it leaves in ``.staging``.

    Args:
        private: those of tenants; None: this process has no keys, and sees public ones alone. What
            an older release stored of tenants lies among the public ones.
    """

    def __init__(self, root: Path, private: PrivateArtifacts | None = None) -> None:
        self.root = root
        self.private = private
        self._staging = root / ".staging"
        with disk_errors():
            self._staging.mkdir(mode=0o700, parents=True, exist_ok=True)

    def collect(
        self, kept: Collection[tuple[str, str]], removed: Collection[str] = ()
    ) -> list[str]:
        """Removes artifacts that nothing refers to, and what imports left that crashed; not what
        may be an import that runs.

        Args:
            kept: tenants and digests that something refers to.
            removed: digests whose versions were removed just now: they need not be as old.

        Returns:
            The digests that are gone.
        """
        now = time.time()
        for left in self._staging.iterdir():
            if age(left, now) > STAGING_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        gone = []
        needed = {digest for tenant, digest in kept if not self._is_private(digest, tenant)}
        for digest in self.digests():
            least = REMOVED_SECONDS if digest in removed else UNUSED_SECONDS
            if digest not in needed and age(self._path(digest), now) > least:
                self.remove(digest)
                gone.append(digest)
        if self.private is not None:
            gone += [digest for _, digest in self.private.collect(kept, removed)]
        return gone

    def need(self, folder: Path, size: int, tenant: str = PUBLIC) -> None:
        """Refuses early what would fill the disk, or the memory where ``scratch`` is.

        Raises:
            StorageFull
        """
        if tenant and self.private is not None:
            self.private.memory.need(size)
        else:
            need_space(folder, size)

    @contextlib.contextmanager
    def errors(self, tenant: str = PUBLIC) -> Iterator[None]:
        """Raises StorageFull where ``scratch`` has no room."""
        with self.private.memory.errors() if tenant and self.private else disk_errors():
            yield

    @contextlib.contextmanager
    def scratch(self, tenant: str = PUBLIC) -> Iterator[Path]:
        """A new private folder, removed afterwards: on the store's own disk, or in memory if what
        it is for is a tenant's."""
        if tenant and self.private is not None:
            with self.private.memory.view("imports") as view:
                yield view
            return
        folder = self._staging / secrets.token_hex(8)
        with disk_errors():
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(
        self,
        staged: Path,
        description: Description,
        *,
        source: str,
        source_sha256: str,
        licence: str = "",
        tenant: str = PUBLIC,
    ) -> tuple[str, Manifest]:
        """Stores the plain files of folder ``staged``, which it takes away; twice is once.

        Args:
            tenant: whose it is: it is sealed then.

        Raises:
            ArtifactRefused: a link, sub-folder or odd name among them, or too much.
            StorageFull: the disk is full; nothing was stored.
        """
        with disk_errors():
            files = [_hashed(path) for path in _listing(staged)]
            if not files or sum(file.size for file in files) > MAX_ARTIFACT_BYTES:
                raise ArtifactRefused("The conversion made no file, or more than may be stored.")
            manifest = Manifest(
                **msgspec.structs.asdict(description),
                files=files,
                source=source,
                source_sha256=source_sha256,
                licence=licence,
            )
            encoded = encode(manifest)
            decode(encoded)
            digest = digest_of(encoded)
            target = self._path(digest)
            if tenant and self.private is not None:
                self.private.add(digest, staged, encoded, tenant)
            elif target.exists():
                os.utime(target)  # it is wanted anew: nobody must collect it
            else:
                self._commit(staged, files, encoded, target)
        return digest, manifest

    def open(self, digest: str) -> Path:
        """The artifact's folder, after every byte of it was checked.

        Raises:
            ModelNotFound: no such artifact.
            ArtifactRefused: a byte, a link or a file is not as the digest says.
        """
        folder = self._path(digest)
        manifest = self.manifest(digest)
        verify(folder, manifest)
        return folder

    def manifest(self, digest: str, tenant: str = PUBLIC) -> Manifest:
        """The manifest, checked against the digest; the files are not read.

        Args:
            tenant: whose it is.

        Raises:
            ModelNotFound: no such artifact.
            ArtifactRefused: the manifest was changed.
            SealBroken, Erased
        """
        if self.private is not None and self._is_private(digest, tenant):
            return self.private.manifest(digest, tenant)
        try:
            with _plain(self._path(digest) / MANIFEST_NAME) as file:
                encoded = file.read(MANIFEST_BYTES + 1)
        except FileNotFoundError:
            raise ModelNotFound(f"No artifact {digest} is stored here.") from None
        if digest_of(encoded) != digest:
            raise ArtifactRefused(f"The manifest of {digest} was changed; pull the model again.")
        return decode(encoded)

    def open_file(self, digest: str, name: str, tenant: str = PUBLIC) -> BinaryIO:
        """One of an artifact's files, unsealed as it is read; its name is of the manifest.

        Raises:
            FileNotFoundError, SealBroken, Erased
        """
        if self.private is not None and self._is_private(digest, tenant):
            return self.private.open_file(digest, tenant, name)
        return open(self._path(digest) / name, "rb")

    @contextlib.contextmanager
    def view(self, digest: str, tenant: str = PUBLIC) -> Iterator[Path]:
        """The root of a store that has an artifact as plain files: this one, or one in memory that
        is removed afterwards.

        Raises:
            ModelNotFound, StorageFull, SealBroken, Erased
        """
        if self.private is None or not self._is_private(digest, tenant):
            yield self.root
            return
        root = self.private.lay(digest, tenant)
        try:
            yield root
        finally:
            self.private.drop(root)

    def remove(self, digest: str, tenant: str = PUBLIC) -> None:
        """Removes an artifact; one that is not there is no error.

        It vanishes by a rename first, so that a crash never leaves half of one in place.
        """
        if self.private is not None and self._is_private(digest, tenant):
            self.private.remove(digest, tenant)
            return
        grave = self._staging / secrets.token_hex(8)
        with contextlib.suppress(FileNotFoundError), disk_errors():
            self._path(digest).rename(grave)
            shutil.rmtree(grave, ignore_errors=True)

    def digests(self) -> list[str]:
        """All artifacts stored, sorted."""
        found = (f"sha256:{entry.name}" for entry in self.root.iterdir() if entry.is_dir())
        return sorted(name for name in found if _is_digest(name))

    def _is_private(self, digest: str, tenant: str) -> bool:
        return bool(tenant) and self.private is not None and self.private.has(digest, tenant)

    def _path(self, digest: str) -> Path:
        return self.root / check_digest(digest)

    def _commit(self, staged: Path, files: list[StoredFile], encoded: bytes, target: Path) -> None:
        folder = self._staging / secrets.token_hex(8)
        try:
            folder.mkdir(mode=0o700)
            for file in files:
                _move(staged / file.path, folder / file.path)
            with open(folder / MANIFEST_NAME, "xb") as out:
                out.write(encoded)
                out.flush()
                os.fsync(out.fileno())
            (folder / MANIFEST_NAME).chmod(0o444)
            sync_folder(folder)
            put_in_place(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def verify(folder: Path, manifest: Manifest) -> None:
    """Checks that ``folder`` holds exactly the manifest's files, byte for byte, and no link.

    Raises:
        ArtifactRefused: it does not.
    """
    present = {path.name for path in folder.iterdir()} - {MANIFEST_NAME}
    if present != {file.path for file in manifest.files}:
        raise ArtifactRefused("The artifact has files too many or too few; pull it again.")
    for file in manifest.files:
        if _hashed(folder / file.path) != file:
            raise ArtifactRefused(f"{file.path} of the artifact is damaged; pull it again.")


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> tuple[int, str]:
    """Size and sha256 (hex) of a plain file with no other link to it.

    Raises:
        ArtifactRefused: it is a link, is linked to from elsewhere, or is no plain file.
    """
    sha256 = hashlib.sha256()
    size = 0
    with _plain(path) as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            size += len(chunk)
            if on_bytes is not None:
                on_bytes(size)
    return size, sha256.hexdigest()


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[io.FileIO]:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ArtifactRefused(f"{path.name} is a symbolic link; only plain files.") from None
        raise
    with os.fdopen(opened, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactRefused(f"{path.name} is no plain file.")
        if status.st_nlink != 1:
            raise ArtifactRefused(f"{path.name} has other links to it; copy it first.")
        yield file


def _hashed(path: Path) -> StoredFile:
    size, sha256 = hash_file(path)
    return StoredFile(path.name, size, sha256)


def _listing(folder: Path) -> list[Path]:
    paths = []
    for path in folder.iterdir():
        check_name(path.name)
        paths.append(path)
        if len(paths) > MAX_FILES:
            raise ArtifactRefused(f"An artifact has at most {MAX_FILES} files.")
    return sorted(paths)


def _move(old: Path, new: Path) -> None:
    """Renames within one disk, copies across; on disk and read-only afterwards."""
    try:
        old.rename(new)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(old, new)
    with open(new, "rb") as file:
        os.fsync(file.fileno())
    new.chmod(0o444)


def age(path: Path, now: float) -> float:
    """Seconds since it was changed; 0 of what is gone."""
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_digest(text: str) -> bool:
    try:
        check_digest(text)
    except ArtifactRefused:
        return False
    return True

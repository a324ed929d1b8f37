"""Artifacts of tenants: sealed with their owner's key, in a folder of each one's own.

The same bytes of two tenants are two artifacts, so that neither can tell that the other has them
too, and what one erases stays the other's. The digest is of the plain bytes, as of public ones.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from openmaas.disk import disk_errors, need_space, put_in_place
from openmaas.encryption.folders import seal_folder, unseal_folder
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.memory import Memory
from openmaas.encryption.sealed import open_sealed
from openmaas.errors import ArtifactRefused, ModelNotFound
from openmaas.registry.artifacts import REMOVED_SECONDS, UNUSED_SECONDS, age
from openmaas.registry.manifest import (
    DIGEST,
    MANIFEST_BYTES,
    MANIFEST_NAME,
    Manifest,
    check_digest,
    decode,
    digest_of,
)

FOLDER = "tenants"  # below that of all artifacts
VIEWS = "artifacts"  # in memory


class PrivateArtifacts:
    """All methods block.

    Args:
        root: of the store of all artifacts.
        memory: where they lie unsealed while they are loaded.
    """

    def __init__(self, root: Path, keyring: Keyring, memory: Memory) -> None:
        self.memory = memory
        self._root = root / FOLDER
        self._staging = root / ".staging"
        self.keyring = keyring

    def has(self, digest: str, tenant: str) -> bool:
        return self._path(digest, tenant).is_dir()

    def add(self, digest: str, staged: Path, encoded: bytes, tenant: str) -> None:
        """Seals the files of a folder, and their manifest; twice is once.

        Raises:
            StorageFull
        """
        target = self._path(digest, tenant)
        with disk_errors():
            if target.exists():
                os.utime(target)  # it is wanted anew: nobody must collect it
                return
            need_space(self._staging, sum(one.stat().st_size for one in staged.iterdir()))
            (staged / MANIFEST_NAME).write_bytes(encoded)
            self._seal(staged, target, digest, tenant)

    def manifest(self, digest: str, tenant: str) -> Manifest:
        """
        Raises:
            ModelNotFound: no such artifact.
            SealBroken, Erased
        """
        try:
            with self.open_file(digest, tenant, MANIFEST_NAME) as file:
                encoded = file.read(MANIFEST_BYTES + 1)
        except FileNotFoundError:
            raise ModelNotFound(f"No artifact {digest} is stored here.") from None
        if digest_of(encoded) != digest:
            raise ArtifactRefused(f"The manifest of {digest} was changed; push the model again.")
        return decode(encoded)

    def open_file(self, digest: str, tenant: str, name: str) -> BinaryIO:
        """One of its files, unsealed as it is read.

        Raises:
            FileNotFoundError, SealBroken, Erased
        """
        path = self._path(digest, tenant) / name
        return open_sealed(path, self.keyring, f"{_name(digest, tenant)}/{name}")

    def lay(self, digest: str, tenant: str) -> Path:
        """The root of a store in memory that has this one artifact; whoever asked removes it.

        Raises:
            ModelNotFound, StorageFull, SealBroken, Erased
        """
        root = self.memory.make(VIEWS, secrets.token_hex(8))
        try:
            with self.memory.errors():
                (root / ".staging").mkdir(mode=0o700)
            folder = self._path(digest, tenant)
            inside = root / check_digest(digest)
            unseal_folder(folder, self.keyring, _name(digest, tenant), inside, self.memory)
        except FileNotFoundError:
            self.drop(root)
            raise ModelNotFound(f"No artifact {digest} is stored here.") from None
        except BaseException:
            self.drop(root)
            raise
        return root

    def drop(self, root: Path) -> None:
        """Removes what ``lay`` laid."""
        shutil.rmtree(root, ignore_errors=True)

    def remove(self, digest: str, tenant: str) -> None:
        """It vanishes by a rename first, so that a crash never leaves half of one in place."""
        grave = self._staging / secrets.token_hex(8)
        with contextlib.suppress(FileNotFoundError), disk_errors():
            self._path(digest, tenant).rename(grave)
            shutil.rmtree(grave, ignore_errors=True)

    def collect(
        self, kept: Collection[tuple[str, str]], removed: Collection[str]
    ) -> list[tuple[str, str]]:
        """As ``ArtifactStore.collect``; tenants and digests of what is gone."""
        now, gone = time.time(), []
        for tenant, digest in self.all():
            least = REMOVED_SECONDS if digest in removed else UNUSED_SECONDS
            if (tenant, digest) not in kept and age(self._path(digest, tenant), now) > least:
                self.remove(digest, tenant)
                gone.append((tenant, digest))
        return gone

    def all(self) -> Iterator[tuple[str, str]]:
        """Tenant and digest of each."""
        for folder in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            for one in sorted(folder.iterdir()) if folder.is_dir() else ():
                if DIGEST.match(f"sha256:{one.name}"):
                    yield folder.name, f"sha256:{one.name}"

    def take_in(self, plain: Path, digest: str, tenant: str) -> None:
        """Seals an artifact that an older release stored as it is.

        Raises:
            StorageFull
        """
        target = self._path(digest, tenant)
        with disk_errors():
            if not target.exists():
                need_space(self._staging, sum(one.stat().st_size for one in plain.iterdir()))
                self._seal(plain, target, digest, tenant)

    def _seal(self, source: Path, target: Path, digest: str, tenant: str) -> None:
        folder = self._staging / secrets.token_hex(8)
        key, name = self.keyring.key(tenant), _name(digest, tenant)
        try:
            seal_folder(source, folder, key, name)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            put_in_place(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, digest: str, tenant: str) -> Path:
        return self._root / tenant / check_digest(digest)


def _name(digest: str, tenant: str) -> str:
    return f"artifacts/{FOLDER}/{tenant}/{check_digest(digest)}"

"""From a trained network to a version that can be served, with the card that says how it came."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from openmaas import __version__
from openmaas.audit import By
from openmaas.database import Database
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.values import json_key_of, seal_json, unseal_json
from openmaas.errors import EngineFailed, NotFound, QuotaExhausted
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.deployments import Deployed, Deployments
from openmaas.registry.importing import import_model, import_trained
from openmaas.registry.manifest import Manifest
from openmaas.registry.records import Records, Version
from openmaas.schema import cards
from openmaas.tenancy.tenants import Tenants
from openmaas.training.task import ExportKind

Deploy = Callable[[Version, By], Deployed]

LOOK_SECONDS = 0.1
# states of what may yet serve
COMING = ("waiting for a server", "waiting for memory", "loading", "restarting")


class Origin(msgspec.Struct, frozen=True):
    """The data that a version was trained on."""

    id: str
    name: str
    fingerprint: str  # sha256 of its content, splits included
    rows: int
    splits: dict[str, int]


class Card(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a version came to be, and how good it is."""

    made_by: str  # job:…, session:… or push
    code: str = f"openmaas {__version__}"
    libraries: dict[str, str] = {}
    dataset: Origin | None = None
    recipe: str = ""  # or "own network"
    parameters: dict[str, Any] = {}
    fit: dict[str, Any] = {}  # optimizer, loss, epochs, seed …, as they were used
    seed: int | None = None
    metrics: dict[str, float | None] = {}  # of the held-out rows
    confusion: dict[str, Any] | None = None  # labels, and rows of true × predicted counts
    history: Sequence[dict[str, Any]] = ()  # metrics of each epoch
    privacy: dict[str, Any] | None = None  # differential_privacy.guarantee.Guarantee; None: none
    description: str = ""
    created: int = 0


class Published(msgspec.Struct, frozen=True):
    """A version with its card."""

    model: str
    version: int
    task: str
    format: str
    digest: str
    size: int  # bytes
    licence: str
    source: str
    created: int
    card: dict[str, Any] | None  # None: none was written for it
    verification: dict[str, Any] | None  # of the serving form against the trained network
    inputs: list[dict[str, Any]]  # name, datatype and shape
    outputs: list[dict[str, Any]]
    labels: list[str]


class Publisher:
    """Registers versions. All methods block; call them from a thread in the gateway.

    Args:
        deploy: writes down that a version is to be served.
        load_seconds: that it has until it answers.
    """

    def __init__(
        self,
        database: Database,
        records: Records,
        artifacts: ArtifactStore,
        tenants: Tenants,
        deployments: Deployments,
        deploy: Deploy,
        load_seconds: float,
        keyring: Keyring,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._records = records
        self._artifacts = artifacts
        self._tenants = tenants
        self._deployments = deployments
        self._deploy = deploy
        self._load_seconds = load_seconds

    def publish(
        self,
        kind: ExportKind,
        export: Path,
        owner: tuple[str, str],
        card: Card,
        by: By,
        *,
        curve: bytes | None = None,
    ) -> Version:
        """Converts an export folder, verifies it and registers it. Once more is once.

        Args:
            owner: tenant and model.

        Raises:
            ConversionFailed: the serving form gives other numbers than the trained network.
            ArtifactRefused, QuotaExhausted, StorageFull
        """
        tenant, model = owner
        for done in self._records.versions(model, tenant):
            if done.source == card.made_by:
                return done
        digest, manifest = import_trained(
            kind, export, self._artifacts, source=card.made_by, tenant=tenant
        )
        version = self._register(owner, digest, manifest, "", by)
        libraries = card.libraries | manifest.converted_by
        full = msgspec.structs.replace(card, libraries=libraries, created=int(time.time()))
        self._write(version, full, curve)
        return version

    def push(
        self, upload: Path, sha256: str | None, owner: tuple[str, str], licence: str, by: By
    ) -> Version:
        """Registers a file that was uploaded: a network trained elsewhere.

        Raises:
            ArtifactRefused: it is of no known format, or unsafe.
            ConversionFailed, QuotaExhausted, StorageFull
        """
        digest, manifest = import_model(
            upload, self._artifacts, expect_sha256=sha256, recorded="upload", tenant=owner[0]
        )
        version = self._register(owner, digest, manifest, licence, by)
        card = Card(
            made_by="push",
            recipe="own network",
            libraries=manifest.converted_by,
            created=int(time.time()),
        )
        self._write(version, card, None)
        return version

    def promote(self, tenant: str, model: str, number: int, by: By) -> Version:
        """Has a version served in place of whichever is, and returns once it answers.

        Raises:
            ModelNotFound: there is none.
            ConfigurationError: no runtime serves its format.
            EngineFailed: it cannot be loaded, or not in time.
        """
        version = self._records.version(model, number, tenant)
        self._settle(self._deploy(version, by))
        return version

    def seal_anew(self, tenant: str) -> None:
        """Seals what is sealed of a tenant's cards with its current key."""
        which = cards.c.tenant == tenant
        query = sa.select(cards.c.model, cards.c.version, cards.c.card).where(which)
        with self._database.write() as connection:
            for row in connection.execute(query.with_for_update()).all():
                card = self._opened(tenant, row.model, row.version, row.card)
                old = json_key_of(row.card.get("confusion"))
                if card.get("confusion") is None or old == self._keyring.key(tenant).id:
                    continue
                about = _about(tenant, row.model, row.version)
                card["confusion"] = seal_json(card["confusion"], self._keyring.key(tenant), about)
                this = which & (cards.c.model == row.model) & (cards.c.version == row.version)
                connection.execute(cards.update().where(this).values(card=card))

    def versions(self, tenant: str, model: str) -> list[Published]:
        """All of a tenant's model, the oldest first.

        Raises:
            NotFound: there is none.
        """
        found = self._records.versions(model, tenant)
        if not found:
            raise NotFound(f"no model {model[:64]!r} of yours; a job or a push makes one")
        query = sa.select(cards.c.version, cards.c.card).where(
            cards.c.tenant == tenant, cards.c.model == model
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        known = {row.version: self._opened(tenant, model, row.version, row.card) for row in rows}
        return [self._told(one, known.get(one.version)) for one in found]

    def curve(self, tenant: str, model: str, number: int) -> bytes:
        """A version's learning curve, PNG.

        Raises:
            NotFound: it has none.
        """
        query = sa.select(cards.c.curve).where(
            cards.c.tenant == tenant, cards.c.model == model, cards.c.version == number
        )
        with self._database.read() as connection:
            found: bytes | None = connection.execute(query).scalar()
        if found is None:
            raise NotFound(f"no learning curve of {model[:64]!r} version {number}")
        return found

    def _settle(self, wanted: Deployed) -> None:
        until = time.monotonic() + self._load_seconds
        seen = wanted
        while seen.state in COMING and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
            now = {one.name: one for one in self._deployments.all()}
            seen = now.get(wanted.name, seen)
            if seen.generation != wanted.generation:
                return  # another was promoted meanwhile
        if not seen.runs_as(wanted) or seen.state not in ("ready", "asleep"):
            raise EngineFailed(f"version {wanted.version} is {seen.state}: {seen.detail}")

    def _register(
        self, owner: tuple[str, str], digest: str, manifest: Manifest, licence: str, by: By
    ) -> Version:
        tenant, model = owner
        version = Version(
            model=model,
            version=0,
            digest=digest,
            task=manifest.task,
            format=manifest.format,
            source=manifest.source,
            licence=licence or manifest.licence,
            size=manifest.size,
            created=0,
            tenant=tenant,
        )
        most = self._tenants.get(tenant).quota.stored_bytes
        try:
            return self._records.add(version, by, most_bytes=most)
        except QuotaExhausted:
            if digest not in {one.digest for one in self._records.versions(tenant=tenant)}:
                self._artifacts.remove(digest, tenant)
            raise

    def _write(self, version: Version, card: Card, curve: bytes | None) -> None:
        which = (
            (cards.c.tenant == version.tenant)
            & (cards.c.model == version.model)
            & (cards.c.version == version.version)
        )
        with self._database.write() as connection:
            connection.execute(cards.delete().where(which))
            connection.execute(
                cards.insert().values(
                    tenant=version.tenant,
                    model=version.model,
                    version=version.version,
                    card=self._sealed(version, card),
                    curve=curve,
                )
            )

    def _sealed(self, version: Version, card: Card) -> dict[str, Any]:
        """As the row holds it: labels are values of the data, which may be names."""
        made: dict[str, Any] = msgspec.to_builtins(card)
        if card.confusion is not None:
            about = _about(version.tenant, version.model, version.version)
            made["confusion"] = seal_json(card.confusion, self._keyring.key(version.tenant), about)
        return made

    def _opened(self, tenant: str, model: str, number: int, card: dict[str, Any]) -> dict[str, Any]:
        if "confusion" not in card:
            return card
        about = _about(tenant, model, number)
        return card | {"confusion": unseal_json(card["confusion"], self._keyring, about)}

    def _told(self, one: Version, card: dict[str, Any] | None) -> Published:
        manifest = self._artifacts.manifest(one.digest, one.tenant)
        verified = manifest.verification
        return Published(
            one.model,
            one.version,
            one.task,
            one.format,
            one.digest,
            one.size,
            one.licence,
            one.source,
            one.created,
            card,
            None if verified is None else msgspec.to_builtins(verified),
            msgspec.to_builtins(manifest.inputs),
            msgspec.to_builtins(manifest.outputs),
            list(manifest.labels),
        )


def _about(tenant: str, model: str, number: int) -> str:
    return f"cards/{tenant}/{model}/{number}"

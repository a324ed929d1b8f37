"""The folders of jobs: what a trainer finds there, and what it leaves for publishing."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from openmaas import __version__
from openmaas.database import Database
from openmaas.disk import disk_errors
from openmaas.encryption.folders import unseal_into
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.memory import Memory
from openmaas.encryption.mirror import Mirror
from openmaas.errors import InvalidRequest, NotFound, OpenMaaSError, TrainingFailed
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.records import Records, Version
from openmaas.schema import PUBLIC, datasets
from openmaas.training import descriptions
from openmaas.training.data import Description
from openmaas.training.datasets import lay
from openmaas.training.differential_privacy import guarantee
from openmaas.training.jobs import UNFINISHED, Job, Jobs
from openmaas.training.publishing import Card, Origin
from openmaas.training.spec import Backend
from openmaas.training.task import (
    CHECKPOINTS,
    CURVE,
    EXPORT,
    PREPARED,
    RESULT,
    TASK,
    ExportKind,
    Result,
    Task,
)

RESULT_BYTES = 64 << 20
CURVE_BYTES = 4 << 20
PACKAGES: dict[Backend, str] = {"jax": "jax", "tensorflow": "tensorflow", "torch": "torch"}
EXTRAS: dict[Backend, str] = {"jax": "train", "tensorflow": "tensorflow", "torch": "convert"}


MOST_EPOCHS = 1000  # that a card tells of
NETWORK, DATASET, ENCODER = "network.keras", "dataset", "encoder"  # in a job's folder
NOISE = "noise.key"  # differential_privacy.noise.KEY, which imports a framework
SPENT = (guarantee.LEDGER, NOISE)
# What is kept of a job's folder, sealed; the result last: where it is, all is.
KEPT = (NETWORK, *SPENT, PREPARED, CHECKPOINTS, EXPORT, CURVE, RESULT)
AWAY = "away"  # a file that says that what is kept is all that there is


class Made(NamedTuple):
    """What a trainer left."""

    kind: ExportKind
    export: Path
    card: Card
    curve: bytes | None  # PNG


class Workshop:
    """All methods block; call them from a thread in the gateway.

    A job's folder is in memory. What it needs to go on is sealed in the data folder, whenever its
    trainer has written a checkpoint, and taken from there when the folder in memory is gone.

    Args:
        folder: the data folder.
        threads: that each trainer may compute with.
        memory: where the folders of jobs are.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        records: Records,
        artifacts: ArtifactStore,
        threads: int,
        keyring: Keyring,
        memory: Memory,
    ) -> None:
        self._kept = folder / "jobs"
        self._datasets = folder / "datasets"
        self._uploads = folder / "uploads"
        self._keyring = keyring
        self._memory = memory
        self._mirrors: dict[str, Mirror] = {}  # of jobs that run
        self._database = database
        self._records = records
        self._artifacts = artifacts
        self._threads = threads

    def folder(self, job: str) -> Path:
        """In memory."""
        return self._memory.path("jobs", job)

    def whole(self, job: str) -> bool:
        """Whether all that a job ever did is here, and not just what was kept of it."""
        kept = self._kept / job
        found = (self.folder(job), kept / AWAY, kept / guarantee.LEDGER)
        return any(one.exists() for one in found)

    def at_hand(self, job: str) -> Path:
        """A job's folder, with what it has spent of its data set's budget; the folder is not there
        if that cannot be told any more."""
        folder = self.folder(job)
        if not folder.exists() and (self._kept / job).is_dir():
            try:
                self._mirror(job, "", SPENT).restore()
            except OpenMaaSError:
                self._memory.remove("jobs", job)
        return folder

    def check_installed(self, backend: Backend) -> None:
        """
        Raises:
            InvalidRequest: the backend is not installed here.
        """
        for package, extra in (("keras", "train"), (PACKAGES[backend], EXTRAS[backend])):
            if importlib.util.find_spec(package) is None:
                raise InvalidRequest(
                    f"{package} is not installed on this server, so that nothing trains; its "
                    f"operator installs it: make install, or pip install 'openmaas[{extra}]'",
                    param="fit.backend",
                )

    def dataset(self, job: Job) -> Path | None:
        """The folder of a job's data set; None: it is not read yet.

        Raises:
            TrainingFailed: it is gone, or could not be read.
        """
        state, _, _ = self._dataset(job)
        if state == "ready":
            return self._datasets / job.spec.dataset
        if state in ("waiting", "reading"):
            return None
        raise TrainingFailed(f"data set {job.spec.dataset} could not be read")

    def prepare(self, job: Job, dataset: Path) -> list[Path]:
        """Makes a job's folder with its task; what an earlier try left there stays, or is taken
        from what was kept.

        Returns:
            What its trainer may read beside the folder.

        Raises:
            InvalidRequest: there is no encoder of the name that a recipe's parameters say.
            TrainingFailed: its data set is gone.
            StorageFull
        """
        folder = self._memory.make("jobs", job.id)
        network = encoder = None
        mirror = self._mirror(job.id, job.tenant)
        mirror.restore()
        with disk_errors():
            mirror.target.mkdir(mode=0o700, parents=True, exist_ok=True)
            (mirror.target / AWAY).unlink(missing_ok=True)
        if job.spec.network is not None and job.spec.network.upload is not None:
            network = folder / NETWORK
            if not network.exists():  # the upload may be gone when the job is taken up again
                upload, part = job.spec.network.upload, folder / "network.part"
                part.unlink(missing_ok=True)
                path, name = self._uploads / upload, f"uploads/{upload}"
                unseal_into(path, self._keyring, name, part, self._memory, growing=True)
                part.rename(network)
        self._lay(dataset.name, folder)
        if job.spec.recipe == "text_encoder":
            encoder = self._encoder(job)
        self.keep(job)
        task = Task(
            spec=job.spec,
            dataset=str(folder / DATASET),
            network=None if network is None else str(network),
            encoder=None if encoder is None else str(encoder),
            threads=self._threads,
        )
        with self._memory.errors():
            (folder / TASK).write_bytes(msgspec.json.encode(task))
        return [] if encoder is None else [encoder]

    def keep(self, job: Job, *, spent: bool = False) -> None:
        """Seals what a job would need to go on elsewhere, as far as it has changed.

        Args:
            spent: only what it has spent of its data set's budget.

        Raises:
            StorageFull
        """
        with disk_errors():
            self._mirror(job.id, job.tenant).keep(SPENT if spent else KEPT)

    def put_away(self, job: Job) -> None:
        """Nothing works on a job now: what it needs is sealed, and nothing of it in memory.

        Raises:
            StorageFull
        """
        if self.folder(job.id).is_dir():
            self.keep(job)
            with disk_errors():
                (self._kept / job.id / AWAY).touch()
        self._mirrors.pop(job.id, None)
        self._memory.remove("jobs", job.id)

    def trained(self, job: Job) -> bool:
        """Whether a trainer came to its end before, so that only publishing is left."""
        return (self._kept / job.id / RESULT).exists()

    def result(self, job: Job) -> Made:
        """
        Raises:
            TrainingFailed: it is damaged.
        """
        folder = self._memory.make("jobs", job.id)
        self._mirror(job.id, job.tenant).restore()
        try:
            with open(folder / RESULT, "rb") as file:
                result = msgspec.json.decode(file.read(RESULT_BYTES), type=Result)
        except (OSError, msgspec.DecodeError) as error:
            raise TrainingFailed(f"the trainer left no result that can be read: {error}") from None
        curve = None
        with contextlib.suppress(OSError), open(folder / CURVE, "rb") as file:
            curve = file.read(CURVE_BYTES)
        _, name, about = self._dataset(job)
        if about is None:
            raise TrainingFailed(f"data set {job.spec.dataset} is gone")
        spec, confusion = job.spec, result.confusion
        card = Card(
            made_by=f"job:{job.id}",
            code=f"openmaas {__version__}",
            libraries=result.libraries,
            dataset=Origin(
                id=spec.dataset,
                name=name,
                fingerprint=about.fingerprint,
                rows=about.rows,
                splits=about.splits,
            ),
            recipe=spec.recipe or "own network",
            parameters=result.parameters,
            fit=result.fit,
            seed=spec.fit.seed,
            metrics=result.metrics,
            confusion=None
            if confusion is None
            else {"labels": confusion.labels, "matrix": confusion.rows},
            history=thinned(result.history),
            privacy=result.privacy,
            description=spec.description,
        )
        return Made(result.kind, folder / EXPORT, card, curve)

    def remove(self, job: str) -> None:
        """Removes what a finished job left."""
        self._mirrors.pop(job, None)
        self._memory.remove("jobs", job)
        shutil.rmtree(self._kept / job, ignore_errors=True)

    def sweep(self, jobs: Jobs) -> None:
        """Removes folders of jobs that are finished or unknown: a crash left them."""
        self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = {job.id for job in jobs.in_state(*UNFINISHED)}
        view = self._memory.path("jobs")
        for folder in [*self._kept.iterdir(), *(view.iterdir() if view.is_dir() else ())]:
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _mirror(self, job: str, tenant: str, kept: Sequence[str] = KEPT) -> Mirror:
        if job in self._mirrors:
            return self._mirrors[job]
        made = Mirror(
            self.folder(job), self._kept / job, f"jobs/{job}", self._keyring, tenant, self._memory,
            kept,
        )  # fmt: skip
        if tenant:
            self._mirrors[job] = made
        return made

    def _lay(self, dataset: str, folder: Path) -> None:
        """
        Raises:
            TrainingFailed: it is gone.
            StorageFull
        """
        place, part = folder / DATASET, folder / f"{DATASET}.part"
        if place.exists():
            return
        shutil.rmtree(part, ignore_errors=True)
        try:
            lay(self._datasets, self._keyring, dataset, part, self._memory)
        except NotFound as error:
            raise TrainingFailed(error.message) from None
        part.rename(place)

    def _dataset(self, job: Job) -> tuple[str, str, Description | None]:
        query = sa.select(datasets.c.state, datasets.c.name, datasets.c.description).where(
            datasets.c.id == job.spec.dataset, datasets.c.tenant == job.tenant
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise TrainingFailed(f"data set {job.spec.dataset} is gone")
        told = descriptions.description(row.description, self._keyring, job.spec.dataset)
        return row.state, row.name, told

    def _encoder(self, job: Job) -> Path:
        """The encoder that a recipe's parameters name; else the tenant's, or a public one."""
        wanted = job.spec.parameters.get("encoder")
        for tenant in (job.tenant, PUBLIC):
            found: Sequence[Version] = [
                one
                for one in self._records.versions(None, tenant)
                if one.format == "openvino-encoder" and wanted in (None, one.model)
            ]
            if found:
                return self._laid(found[-1], self.folder(job.id) / ENCODER)
        what = "no sentence encoder is here" if wanted is None else f"no encoder {wanted!r} is here"
        raise InvalidRequest(
            f"{what}; `openmaas models pull minilm-l6-v2` brings one", param="parameters.encoder"
        )

    def _laid(self, version: Version, place: Path) -> Path:
        """An artifact's folder; of a private one in a job's own."""
        digest = version.digest
        with self._artifacts.view(digest, version.tenant) as root:
            found = ArtifactStore(root).open(digest)
            if root == self._artifacts.root:
                return found
            if not place.exists():
                found.rename(place)
        return place


def thinned(history: list[dict[str, float | None]]) -> list[dict[str, float | None]]:
    """Every so many epochs, the last one too, where there are more than a card tells of."""
    every = -(-len(history) // MOST_EPOCHS)
    return history if every <= 1 else [*history[:-1:every], history[-1]]

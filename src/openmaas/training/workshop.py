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
from openmaas.errors import InvalidRequest, TrainingFailed
from openmaas.registry.artifacts import ArtifactStore, disk_errors
from openmaas.registry.records import Records, Version
from openmaas.schema import PUBLIC, datasets
from openmaas.training.data import Description
from openmaas.training.jobs import UNFINISHED, Job, Jobs
from openmaas.training.publishing import Card, Origin
from openmaas.training.spec import Backend
from openmaas.training.task import CURVE, EXPORT, RESULT, TASK, ExportKind, Result, Task

RESULT_BYTES = 64 << 20
CURVE_BYTES = 4 << 20
PACKAGES: dict[Backend, str] = {"jax": "jax", "tensorflow": "tensorflow", "torch": "torch"}
EXTRAS: dict[Backend, str] = {"jax": "train", "tensorflow": "tensorflow", "torch": "convert"}


MOST_EPOCHS = 1000  # that a card tells of


class Made(NamedTuple):
    """What a trainer left."""

    kind: ExportKind
    export: Path
    card: Card
    curve: bytes | None  # PNG


class Workshop:
    """All methods block; call them from a thread in the gateway.

    Args:
        folder: the data folder.
        threads: that each trainer may compute with.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        records: Records,
        artifacts: ArtifactStore,
        threads: int,
    ) -> None:
        self._jobs = folder / "jobs"
        self._datasets = folder / "datasets"
        self._uploads = folder / "uploads"
        self._database = database
        self._records = records
        self._artifacts = artifacts
        self._threads = threads

    def folder(self, job: str) -> Path:
        return self._jobs / job

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
        """Makes a job's folder with its task; what an earlier try left there stays.

        Returns:
            What its trainer may read beside the folder.

        Raises:
            InvalidRequest: there is no encoder of the name that a recipe's parameters say.
            StorageFull
        """
        folder = self.folder(job.id)
        network = encoder = None
        with disk_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if job.spec.network is not None and job.spec.network.upload is not None:
                network = folder / "network.keras"
                if not network.exists():  # the upload may be gone when the job is taken up again
                    part = folder / "network.part"
                    shutil.copyfile(self._uploads / job.spec.network.upload, part)
                    part.rename(network)
        if job.spec.recipe == "text_encoder":
            encoder = self._encoder(job)
        task = Task(
            spec=job.spec,
            dataset=str(dataset),
            network=None if network is None else str(network),
            encoder=None if encoder is None else str(encoder),
            threads=self._threads,
        )
        with disk_errors():
            (folder / TASK).write_bytes(msgspec.json.encode(task))
        return [dataset] if encoder is None else [dataset, encoder]

    def trained(self, job: Job) -> bool:
        """Whether a trainer came to its end before, so that only publishing is left."""
        return (self.folder(job.id) / RESULT).exists()

    def result(self, job: Job) -> Made:
        """
        Raises:
            TrainingFailed: it is damaged.
        """
        folder = self.folder(job.id)
        try:
            with open(folder / RESULT, "rb") as file:
                result = msgspec.json.decode(file.read(RESULT_BYTES), type=Result)
        except (OSError, msgspec.DecodeError) as error:
            raise TrainingFailed(f"the trainer left no result that can be read: {error}") from None
        curve = None
        with contextlib.suppress(OSError), open(folder / CURVE, "rb") as file:
            curve = file.read(CURVE_BYTES)
        _, name, description = self._dataset(job)
        about = msgspec.convert(description, Description)
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
        shutil.rmtree(self.folder(job), ignore_errors=True)

    def sweep(self, jobs: Jobs) -> None:
        """Removes folders of jobs that are finished or unknown: a crash left them."""
        self._jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = {job.id for job in jobs.in_state(*UNFINISHED)}
        for folder in self._jobs.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _dataset(self, job: Job) -> tuple[str, str, object]:
        query = sa.select(datasets.c.state, datasets.c.name, datasets.c.description).where(
            datasets.c.id == job.spec.dataset, datasets.c.tenant == job.tenant
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise TrainingFailed(f"data set {job.spec.dataset} is gone")
        return row.state, row.name, row.description

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
                return self._artifacts.open(found[-1].digest)
        what = "no sentence encoder is here" if wanted is None else f"no encoder {wanted!r} is here"
        raise InvalidRequest(
            f"{what}; `openmaas models pull minilm-l6-v2` brings one", param="parameters.encoder"
        )


def thinned(history: list[dict[str, float | None]]) -> list[dict[str, float | None]]:
    """Every so many epochs, the last one too, where there are more than a card tells of."""
    every = -(-len(history) // MOST_EPOCHS)
    return history if every <= 1 else [*history[:-1:every], history[-1]]

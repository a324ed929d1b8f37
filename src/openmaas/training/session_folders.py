"""What sessions are opened from: their folders, and what a form must say. It blocks: in threads."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from openmaas.disk import disk_errors
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.memory import Memory
from openmaas.encryption.mirror import Mirror
from openmaas.errors import InvalidRequest
from openmaas.training.datasets import lay
from openmaas.training.publishing import Card, Origin
from openmaas.training.session_frames import Answer
from openmaas.training.session_records import SessionRecords, SessionRow
from openmaas.training.session_task import CHECKPOINTS, PREPARED, TASK, SessionTask
from openmaas.training.spec import Optimizer, SessionSpec
from openmaas.training.uploads import Upload, Uploads

# What they learn is not the loss of one output that a session's calls know.
JOBS_ALONE = ("text_encoder", "seq2seq_rnn", "seq2seq_transformer")

NETWORK, DATASET = "network.keras", "dataset"  # in a session's folder
NOISE = "noise.key"  # differential_privacy.noise.KEY, which imports a framework
KEPT = (NETWORK, NOISE, PREPARED, CHECKPOINTS)


class SessionFolders:
    """A session's folder is in memory while it has a process. What it needs to be resumed is sealed
    in the data folder whenever a checkpoint is written.

    Args:
        folder: the data folder.
    """

    def __init__(
        self,
        folder: Path,
        records: SessionRecords,
        uploads: Uploads,
        keyring: Keyring,
        memory: Memory,
    ) -> None:
        self._kept = folder / "sessions"
        self._datasets = folder / "datasets"
        self._records = records
        self._uploads = uploads
        self._keyring = keyring
        self._memory = memory

    def folder(self, id: str) -> Path:
        """In memory."""
        return self._memory.path("sessions", id)

    def sweep(self, kept: Collection[str]) -> None:
        """Removes what nobody can resume. Call it while no session has a process."""
        self.forget()
        self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in self._kept.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def find(self, spec: SessionSpec, tenant: str) -> tuple[Upload | None, Origin | None]:
        """The upload and the data set that are named.

        Raises:
            NotFound, InvalidRequest: they are not there, or not ready.
        """
        upload = None
        if spec.network is not None and spec.network.upload is not None:
            upload = self._uploads.whole(spec.network.upload, tenant)
        origin = None
        if spec.dataset is not None:
            origin = self._records.origin(spec.dataset, tenant, self._keyring)
        return upload, origin

    def prepare(self, row: SessionRow, upload: Upload | None) -> None:
        """Makes a session's folder.

        Raises:
            NotFound, StorageFull
        """
        folder = self._memory.make("sessions", row.id)
        if upload is not None:
            self._uploads.unseal(upload, folder / NETWORK, self._memory)
        self._begin(row, None)

    def resume(self, row: SessionRow) -> None:
        """Has its next process begin at its last checkpoint.

        Raises:
            NotFound: its data set is gone.
            SealBroken, StorageFull
        """
        self._memory.remove("sessions", row.id)  # of a process that died
        self._memory.make("sessions", row.id)
        self._mirror(row).restore()
        self._begin(row, row.checkpoint)

    def keep(self, row: SessionRow) -> None:
        """Seals what it would need to be resumed, as far as it has changed.

        Raises:
            StorageFull
        """
        with disk_errors():
            (self._kept / row.id).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._mirror(row).keep()

    def forget(self) -> None:
        """No session has a process any more: nothing of them is in memory."""
        self._memory.remove("sessions")

    def put_away(self, id: str) -> None:
        """Its process has ended: nothing of it is in memory."""
        self._memory.remove("sessions", id)

    def remove(self, id: str) -> None:
        """Nobody resumes it."""
        self._memory.remove("sessions", id)
        shutil.rmtree(self._kept / id, ignore_errors=True)

    def _begin(self, row: SessionRow, checkpoint: str | None) -> None:
        folder, dataset = self.folder(row.id), row.spec.dataset
        if dataset is not None:
            lay(self._datasets, self._keyring, dataset, folder / DATASET, self._memory)
        network = folder / NETWORK
        task = SessionTask(
            spec=row.spec,
            network=str(network) if network.exists() else None,
            dataset=None if dataset is None else str(folder / DATASET),
            checkpoint=checkpoint,
        )
        with self._memory.errors():
            (folder / TASK).write_bytes(msgspec.json.encode(task))

    def _mirror(self, row: SessionRow) -> Mirror:
        return Mirror(
            self.folder(row.id), self._kept / row.id, f"sessions/{row.id}", self._keyring,
            row.tenant, self._memory, KEPT,
        )  # fmt: skip

    def card(
        self,
        row: SessionRow,
        answer: Answer,
        libraries: dict[str, str],
        description: str,
        privacy: dict[str, Any] | None,
    ) -> Card:
        """How a version came to be that is published now."""
        spec = row.spec
        dataset = None
        if spec.dataset is not None:
            dataset = self._records.origin(spec.dataset, row.tenant, self._keyring)
        fit = {"steps": answer.step, "loss": spec.loss, "dtype": spec.dtype,
               "optimizer": msgspec.to_builtins(spec.optimizer)}  # fmt: skip
        return Card(
            made_by=f"session:{row.id}@{answer.step}:{answer.values['weights'][:16]}",
            libraries=libraries,
            dataset=dataset,
            recipe=spec.recipe or "own network",
            parameters=spec.parameters,
            fit=fit,
            seed=spec.seed,
            description=description,
            privacy=privacy,
        )


def check(spec: SessionSpec) -> None:
    """
    Raises:
        InvalidRequest: what is to be opened is not said, or twice.
    """
    if (spec.recipe is None) == (spec.network is None):
        raise InvalidRequest("say either a recipe or a network", param="network")
    network = spec.network
    if spec.recipe is not None and spec.dataset is None:
        raise InvalidRequest("a recipe needs a data set", param="dataset")
    if spec.recipe in JOBS_ALONE:
        raise InvalidRequest(f"{spec.recipe} is trained by jobs alone", param="recipe")
    if network is not None and (network.config is None) == (network.upload is None):
        raise InvalidRequest("network has either a config or an upload", param="network")
    if network is not None and spec.parameters:
        raise InvalidRequest("parameters are a recipe's; a network has none", param="parameters")
    if spec.loss is None and spec.dataset is None:
        raise InvalidRequest("a network of your own needs a loss", param="loss")
    if spec.privacy is not None and spec.dataset is None:
        raise InvalidRequest(
            "a private session learns from a data set of the server's", param="dataset"
        )
    if spec.privacy is not None and spec.dtype != "float32":
        raise InvalidRequest("a private session computes in float32", param="dtype")
    if spec.dataset is None:
        for name in ("inputs", "target"):
            if getattr(spec, name) is not None:
                raise InvalidRequest(f"{name} are of a data set; none is given", param=name)
    if isinstance(spec.optimizer, str):
        try:
            msgspec.convert({"name": spec.optimizer.lower()}, Optimizer)
        except msgspec.ValidationError:
            told = f"no optimizer {spec.optimizer[:64]!r}"
            raise InvalidRequest(told, param="optimizer") from None

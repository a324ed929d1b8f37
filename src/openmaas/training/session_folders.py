"""What sessions are opened from: their folders, and what a form must say. It blocks: in threads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec

from openmaas.errors import InvalidRequest
from openmaas.registry.artifacts import disk_errors
from openmaas.training.publishing import Card, Origin
from openmaas.training.session_frames import Answer
from openmaas.training.session_records import SessionRecords, SessionRow
from openmaas.training.session_task import TASK, SessionTask
from openmaas.training.spec import Optimizer, SessionSpec
from openmaas.training.uploads import Uploads

# What they learn is not the loss of one output that a session's calls know.
JOBS_ALONE = ("text_encoder", "seq2seq_rnn", "seq2seq_transformer")


class SessionFolders:
    """
    Args:
        folder: the data folder.
    """

    def __init__(self, folder: Path, records: SessionRecords, uploads: Uploads) -> None:
        self._folder = folder / "sessions"
        self._datasets = folder / "datasets"
        self._records = records
        self._uploads = uploads

    def readable(self, row: SessionRow) -> list[Path]:
        """What its process may read."""
        found = [self._folder / row.id]
        if row.spec.dataset is not None:
            found.append(self._datasets / row.spec.dataset)
        return found

    def find(self, spec: SessionSpec, tenant: str) -> tuple[Path | None, Origin | None]:
        """The upload and the data set that are named.

        Raises:
            NotFound, InvalidRequest: they are not there, or not ready.
        """
        upload = None
        if spec.network is not None and spec.network.upload is not None:
            upload, _ = self._uploads.whole(spec.network.upload, tenant)
        origin = None if spec.dataset is None else self._records.origin(spec.dataset, tenant)
        return upload, origin

    def prepare(self, row: SessionRow, upload: Path | None, dataset: Origin | None) -> None:
        """Makes a session's folder.

        Raises:
            StorageFull
        """
        folder = self._folder / row.id
        with disk_errors():
            folder.mkdir(mode=0o700, parents=True)
            network = None
            if upload is not None:
                network = folder / "network.keras"
                shutil.copyfile(upload, network)
            task = SessionTask(
                spec=row.spec,
                network=None if network is None else str(network),
                dataset=None if dataset is None else str(self._datasets / dataset.id),
            )
            (folder / TASK).write_bytes(msgspec.json.encode(task))

    def resume_at(self, row: SessionRow) -> None:
        """Has its next process begin at its last checkpoint."""
        path = self._folder / row.id / TASK
        with disk_errors():
            task = msgspec.json.decode(path.read_bytes(), type=SessionTask)
            task = msgspec.structs.replace(task, checkpoint=row.checkpoint)
            path.write_bytes(msgspec.json.encode(task))

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
            dataset = self._records.origin(spec.dataset, row.tenant)
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

"""Models of tenants are sealed on disk: a worker gets its own as plain files in memory, for as long
as it loads them. What an engine reads later it has mapped by then, and a file that is removed stays
for whoever has it mapped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from openmaas.encryption.sealed import seal_json, unseal_json
from openmaas.errors import Erased, OpenMaaSError, WorkerFailed
from openmaas.frames import Ready, Refused, ToGateway
from openmaas.inference import ModelInfo
from openmaas.placement.base import Placement, Worker, WorkerSpec
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.deployments import Deployed
from openmaas.registry.private import PrivateArtifacts


class UnsealingPlacement:
    """
    Args:
        placement: that starts workers on plain files.
    """

    def __init__(self, placement: Placement, artifacts: ArtifactStore) -> None:
        self._placement = placement
        self._artifacts = artifacts

    async def start(
        self,
        spec: WorkerSpec,
        on_start: Callable[[Worker], None],
        on_frame: Callable[[ToGateway], None],
        on_exit: Callable[[str], None],
    ) -> tuple[Worker, Ready | Refused]:
        """As ``Placement.start``.

        Raises:
            WorkerFailed: also where the artifact cannot be unsealed.
        """
        view = self._artifacts.view(spec.digest, spec.tenant)
        try:
            root = await asyncio.to_thread(view.__enter__)
        except OpenMaaSError as error:
            raise WorkerFailed(error.message) from error
        try:
            plain = msgspec.structs.replace(spec, artifacts=str(root), tenant="")
            return await self._placement.start(plain, on_start, on_frame, on_exit)
        finally:
            await asyncio.shield(asyncio.to_thread(view.__exit__, None, None, None))


LABELS = "sealed_labels"  # of what a row knows of a tenant's model: they may be names


def told(seen: Deployed, info: ModelInfo | None, private: PrivateArtifacts | None) -> Deployed:
    """What a deployment's row is to say, with what is known of its model. It blocks."""
    made: dict[str, Any] | None = msgspec.to_builtins(info)
    if made and made.get("labels") and seen.tenant and private is not None:
        key = private.keyring.key(seen.tenant)
        made |= {LABELS: seal_json(made["labels"], key, _about(seen)), "labels": []}
    return msgspec.structs.replace(seen, info=made)


def known(row: Deployed, private: PrivateArtifacts | None) -> ModelInfo | None:
    """What a row knows of its model; None: nothing that can be read. It blocks."""
    info = row.info
    try:
        if info and LABELS in info and private is not None:
            labels = unseal_json(info[LABELS], private.keyring, _about(row))
            info = info | {"labels": labels}
        return msgspec.convert(info, ModelInfo) if info else None
    except (msgspec.ValidationError, Erased):  # another release wrote it
        return None


def _about(row: Deployed) -> str:
    return f"deployments/{row.tenant}/{row.model}/{row.version}"

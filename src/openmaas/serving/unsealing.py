"""Models of tenants are sealed on disk: a worker gets its own as plain files in memory, for as long
as it loads them. What an engine reads later it has mapped by then, and a file that is removed stays
for whoever has it mapped; engines that open files later keep them as long as they run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from openmaas.encryption.values import seal_json, unseal_json
from openmaas.errors import Erased, OpenMaaSError, SealBroken, WorkerFailed
from openmaas.frames import Ready, Refused, ToGateway
from openmaas.inference import ModelInfo
from openmaas.placement.base import Placement, Worker, WorkerSpec
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.deployments import Deployed
from openmaas.registry.private import PrivateArtifacts

READS_ON = frozenset({"openvino_genai"})
"""Runtimes that open files later too: vocabularies for the compiler of schemas, a second engine."""


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
        loop = asyncio.get_running_loop()
        try:
            root = await asyncio.to_thread(view.__enter__)
        except OpenMaaSError as error:
            raise WorkerFailed(error.message) from error
        plain = msgspec.structs.replace(spec, artifacts=str(root), tenant="")

        def ended(words: str) -> None:
            loop.run_in_executor(None, close)
            on_exit(words)

        def close() -> None:
            view.__exit__(None, None, None)

        if spec.runtime in READS_ON:
            try:
                return await self._placement.start(plain, on_start, on_frame, ended)
            except BaseException:
                loop.run_in_executor(None, close)
                raise
        try:
            return await self._placement.start(plain, on_start, on_frame, on_exit)
        finally:
            await asyncio.shield(asyncio.to_thread(close))


SEALED = "sealed:"  # before what a row has in place of a tenant's labels, which may be names


def told(seen: Deployed, info: ModelInfo | None, private: PrivateArtifacts | None) -> Deployed:
    """What a deployment's row is to say, with what is known of its model. It blocks."""
    if info is not None and info.labels and seen.tenant and private is not None:
        key = private.keyring.key(seen.tenant)
        sealed = seal_json(info.labels, key, _about(seen))["sealed"]
        info = msgspec.structs.replace(info, labels=[SEALED + sealed])
    return msgspec.structs.replace(seen, info=msgspec.to_builtins(info))


def known(row: Deployed, private: PrivateArtifacts | None) -> ModelInfo | None:
    """What a row knows of its model; None: nothing that can be read. It blocks."""
    try:
        info = msgspec.convert(row.info, ModelInfo) if row.info else None
        if info is None or private is None or not row.tenant:
            return info
        if len(info.labels) != 1 or not info.labels[0].startswith(SEALED):
            return info
        stored = {"sealed": info.labels[0].removeprefix(SEALED)}
        labels = unseal_json(stored, private.keyring, _about(row))
        return msgspec.structs.replace(info, labels=labels)
    except (msgspec.ValidationError, Erased, SealBroken):  # another release wrote it
        return None


def _about(row: Deployed) -> str:
    return f"deployments/{row.tenant}/{row.model}/{row.version}"

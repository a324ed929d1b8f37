"""A deployed model asked in-process: gateway here, engine in its worker, no HTTP between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from serve import Model, command, prepare

from openmaas.app import build_server, open_store
from openmaas.config import Settings
from openmaas.serving.asking import Asking
from openmaas.tenancy.access import LOCAL


@contextlib.asynccontextmanager
async def asked(cache: Path, model: Model) -> AsyncIterator[Asking]:
    """What tasks and explanations work with, of one model."""
    data = prepare(cache, [model])
    words = [
        word for key, value in model.options.items() for word in ("--option", f"{key}={value}")
    ]
    command(data, "deploy", model.name, *words)
    settings = Settings(data_dir=str(data), tenancy=False)
    store = open_store(settings)
    server = build_server(settings, store)
    turns: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    told: asyncio.Queue[object] = asyncio.Queue()
    turns.put_nowait({"type": "lifespan.startup"})
    living = asyncio.ensure_future(server({"type": "lifespan"}, turns.get, told.put))  # type: ignore[arg-type]
    try:
        await told.get()
        pipeline = server._pipeline
        ticket = await server._admission.open(LOCAL, "bench", "explain")
        yield await pipeline.asking(ticket, model.name, "be explained", lambda _: 0)
    finally:
        turns.put_nowait({"type": "lifespan.shutdown"})
        await living
        store.database.close()
        command(data, "undeploy", model.name)

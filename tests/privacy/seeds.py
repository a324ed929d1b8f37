"""A tenant that has one of everything, with canaries in all that it chose or said."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec
import sqlalchemy as sa

from openmaas import schema
from openmaas.app import Store
from openmaas.encryption.sealed import SealedWriter
from openmaas.privacy.retained import Exchange, RetainedExchanges, day_of
from openmaas.registry.manifest import Description
from openmaas.tenancy.keys import NewKey
from openmaas.tenancy.privacy import PrivacyPolicy
from tests.stores import ME

DATASET, OTHER = "ds_00000000000000000000000a", "ds_00000000000000000000000b"


def canary(tenant: str, what: str) -> str:
    """What a search looks for: nothing else is called so."""
    return f"canary-{tenant}-{what}"


def fill(store: Store, data: Path, tenant: str) -> None:
    """
    Args:
        data: the data folder, with the model ``digits``.
    """
    store.tenants.create(tenant, ME)
    store.tenants.change(tenant, ME, privacy=PrivacyPolicy(retain_days=30))
    store.tenants.create_project(tenant, "shop", ME)
    key, _ = store.keys.create(NewKey(name=canary(tenant, "key"), tenant=tenant), ME)
    own = {"tenant": tenant, "project": "default", "key": key.id}
    with store.database.write() as connection:
        _rows(connection, own, tenant)
    _files(store, data, tenant)
    _model(store, tenant)
    retained = RetainedExchanges(store.database, store.keyring, data)
    now = time.time_ns() // 1_000_000
    said = canary(tenant, "said").encode()
    one = Exchange(
        tenant, f"req_{tenant}", now, key.id, "/v1/x", "digits@1", 200, len(said), len(said), False,
        said, said,
    )  # fmt: skip
    assert retained.keep(tenant, day_of(now), [one]) == 0


def ids(tenant: str) -> dict[str, str]:
    """What things are called: of their owner, so that two tenants can be filled."""
    end = tenant.encode().hex()
    return {
        "upload": f"up_{end}", "dataset": f"ds_{end}", "job": f"job_{end}", "file": f"file-{end}",
        "session": f"session_{end}", "batch": f"batch_{end}",
    }  # fmt: skip


def _rows(connection: sa.Connection, own: dict[str, str], tenant: str) -> None:
    now, id = int(time.time()), ids(tenant)
    name = canary(tenant, "name")
    description = {"columns": [{"name": canary(tenant, "column")}], "labels": [name]}
    rows = {
        schema.uploads: own | {
            "id": id["upload"], "name": name, "size": 9, "sha256": None, "received": 9,
            "created": now, "touched": now,
        },
        schema.datasets: own | {
            "id": id["dataset"], "name": name, "format": "csv", "state": "ready",
            "upload": "up_0", "options": {}, "description": description, "error": None,
            "bytes": 20, "created": now, "finished": now,
        },
        schema.jobs: own | {
            "id": id["job"], "model": "learnt", "spec": {
                "model": "learnt", "dataset": id["dataset"], "recipe": "text_embeddings",
                "description": canary(tenant, "spec"),
            },
            "state": "paused", "progress": {}, "error": None, "version": None, "seconds": 1.0,
            "billed": 0, "attempts": 1, "created": now, "started": now, "finished": None,
        },
        schema.job_events: {
            "job": id["job"], "number": 1, "time": now, "kind": "message",
            "data": {"text": canary(tenant, "event")},
        },
        schema.sessions: own | {
            "id": id["session"], "model": "learnt", "spec": {
                "model": "learnt", "dataset": id["dataset"], "recipe": "text_embeddings",
            },
            "state": "idle", "step": 1, "checkpoint": "auto", "error": None, "seconds": 1.0,
            "created": now, "touched": now,
        },
        schema.files: own | {
            "id": id["file"], "name": name, "purpose": "batch", "bytes": 9, "created": now,
            "expires": now + 9999,
        },
        schema.batches: own | {
            "id": id["batch"], "endpoint": "/v1/chat/completions", "input": id["file"],
            "metadata": {"for": canary(tenant, "metadata")}, "keep": 9, "state": "in_progress",
            "total": 2, "completed": 0, "failed": 0, "created": now, "expires": now + 9999,
        },
        schema.privacy_budgets: {
            "dataset": id["dataset"], "tenant": tenant, "epsilon": 3.0, "delta": 1e-6,
            "changed": now,
        },
        schema.privacy_spends: {
            "id": id["job"], "dataset": id["dataset"], "tenant": tenant, "state": "settled",
            "epsilon": 1.0, "delta": 1e-6, "created": now,
        },
        schema.usage: own | {
            "request": f"req_{tenant}", "part": 0, "time": now * 1000, "model": "learnt",
            "version": "1", "task": "chat", "priority": "interactive", "outcome": "ok",
            "input_tokens": 5, "cached_tokens": 0, "output_tokens": 7, "rows": 0, "seconds": 0,
            "queue_us": 1, "run_us": 1, "price": 0, "cost": 0,
            "idempotency": canary(tenant, "idempotency"),
        },
        schema.usage_days: own | {
            "day": 20261223, "model": "learnt", "version": "1", "task": "chat", "outcome": "ok",
            "price": 0, "requests": 1, "input_tokens": 5, "cached_tokens": 0, "output_tokens": 7,
            "rows": 0, "seconds": 0, "queue_us": 1, "run_us": 1, "cost": 0,
        },
    }  # fmt: skip
    for table, row in rows.items():
        connection.execute(table.insert().values(**row))
    for object in (id["upload"], name):
        ME.note(connection, "upload.create", object, tenant=tenant, name=name)


def _files(store: Store, data: Path, tenant: str) -> None:
    id = ids(tenant)
    inside = canary(tenant, "content").encode()
    for name, object, size in (
        (f"uploads/{id['upload']}", "", 9),
        (f"files/{id['file']}", "", 9),
        (f"batches/{id['batch']}.jsonl", "", None),
        (f"datasets/{id['dataset']}/table.arrow", id["dataset"], None),
        (f"jobs/{id['job']}/checkpoint", "", None),
        (f"sessions/{id['session']}/checkpoint", "", None),
    ):
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = SealedWriter.create(path, store.keyring.key(tenant, object), name)
        writer.write(inside if size is None else inside[:size])
        writer.finish()


def _model(store: Store, tenant: str) -> None:
    """A version of its own, one that others have too, and how the first came to be."""
    shared = store.records.version("digits")
    manifest = store.artifacts.manifest(shared.digest)
    names = Description.__struct_fields__
    with store.artifacts.scratch() as scratch:
        for file in manifest.files:
            shutil.copyfile(store.artifacts.open(shared.digest) / file.path, scratch / file.path)
        digest, own = store.artifacts.add(
            scratch,
            Description(**{name: getattr(manifest, name) for name in names}),
            source=f"job:{ids(tenant)['job']}",
            source_sha256=manifest.source_sha256,
            licence=canary(tenant, "licence"),
            tenant=tenant,
        )
    learnt = msgspec.structs.replace(
        shared, model="learnt", digest=digest, tenant=tenant, source=own.source,
        licence=own.licence, size=own.size,
    )  # fmt: skip
    store.records.add(learnt, ME)
    store.records.add(msgspec.structs.replace(shared, model="same", tenant=tenant), ME)
    card = {
        "made_by": own.source,
        "dataset": {"id": ids(tenant)["dataset"], "name": canary(tenant, "name")},
        "description": canary(tenant, "card"),
        "privacy": {"epsilon": 1.0, "delta": 1e-6},
    }
    target = {"version": 1, "weight": 100.0}
    live = {"tenant": tenant, "model": "learnt", "alias": "live", "targets": [target]}
    with store.database.write() as connection:
        connection.execute(
            schema.cards.insert().values(
                tenant=tenant, model="learnt", version=1, card=card,
                curve=canary(tenant, "curve").encode(),
            )
        )  # fmt: skip
        more = {"detail": "", "generation": 1, "changed": 1}
        connection.execute(schema.aliases.insert().values(**live, **more))
        connection.execute(
            schema.deployments.insert().values(
                tenant=tenant, model="learnt", version=1, runtime="openvino_tensors", reason="",
                options={"note": canary(tenant, "options")}, min_replicas=0, max_replicas=1,
                kept=True, generation=1, state="asleep", detail="", workers=[], restarts=0,
                memory=0, load_seconds=0.0,
            )
        )  # fmt: skip

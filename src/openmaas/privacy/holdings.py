"""What is held of a tenant, kind by kind: where, why, until when, and what becomes of it when the
tenant is erased. The report, the export and erasure all go by this one list, and a test compares it
with the database's tables, so that none is forgotten."""

from __future__ import annotations

from typing import Literal, NamedTuple

import sqlalchemy as sa

from openmaas import schema

Fate = Literal["removed", "kept", "emptied"]


class Holding(NamedTuple):
    """
    Attributes:
        table: its rows.
        owner: the column that says whose they are; of ``job_events`` the job's.
        bytes: the column of their size on disk, where there is a file to each.
        folder: below the data folder, where what they tell of lies.
        purpose: why it is kept.
        until: when it goes by itself.
        sealed: with which key, or why with none.
        fate: what erasing the tenant does to it.
        hidden: columns that are no part of an export, and why.
    """

    kind: str
    table: sa.Table
    owner: sa.ColumnElement[str]
    purpose: str
    until: str
    sealed: str
    fate: Fate = "removed"
    bytes: sa.ColumnElement[int] | None = None
    folder: str = ""
    hidden: tuple[str, ...] = ()


METADATA = "not sealed: names, numbers and times, no content"
TENANT_KEY = "the tenant's key"

_events = sa.select(schema.jobs.c.tenant).where(schema.jobs.c.id == schema.job_events.c.job)

HOLDINGS = (
    Holding(
        "tenant", schema.tenants, schema.tenants.c.id,
        "who pays and owns, its quota and its policy of privacy", "it is erased",
        METADATA, "emptied",
    ),
    Holding(
        "projects", schema.projects, schema.projects.c.tenant,
        "what keys and bills are told apart by", "the tenant is erased", METADATA,
    ),
    Holding(
        "keys", schema.keys, schema.keys.c.tenant,
        "who may do what", "the tenant is erased",
        "not sealed: secrets are not kept, only hashes of 256 random bits", hidden=("hash",),
    ),
    Holding(
        "data keys", schema.data_keys, schema.data_keys.c.tenant,
        "what all else of the tenant is sealed with", "what is sealed with them goes",
        "wrapped by the master key, or by the tenant's", hidden=("wrapped",),
    ),
    Holding(
        "audit", schema.audit, schema.audit.c.tenant,
        "who did what, for whoever must answer for it", "never; erasing takes names out of it",
        METADATA, "emptied",
    ),
    Holding(
        "usage", schema.usage, schema.usage.c.tenant,
        "what is billed, and the proof of it: counts and money", "never", METADATA, "kept",
    ),
    Holding(
        "usage by day", schema.usage_days, schema.usage_days.c.tenant,
        "sums of what is billed", "never", METADATA, "kept",
    ),
    Holding(
        "versions", schema.versions, schema.versions.c.tenant,
        "models to be served", "they are removed", TENANT_KEY,
        bytes=schema.versions.c.size, folder="artifacts",
    ),
    Holding(
        "cards", schema.cards, schema.cards.c.tenant,
        "how versions came to be, and how good they are", "their version is erased",
        "not sealed: metrics, parameters and labels", hidden=("curve",),
    ),
    Holding(
        "deployments", schema.deployments, schema.deployments.c.tenant,
        "which versions are served, and how", "they are taken down", METADATA,
    ),
    Holding(
        "aliases", schema.aliases, schema.aliases.c.tenant,
        "which versions answer", "they are removed", METADATA,
    ),
    Holding(
        "uploads", schema.uploads, schema.uploads.c.tenant,
        "files on their way to a data set, a job or a model",
        "they are used up, or nobody touches them for a day", TENANT_KEY,
        bytes=schema.uploads.c.received, folder="uploads",
    ),
    Holding(
        "data sets", schema.datasets, schema.datasets.c.tenant,
        "what models are trained on", "they are removed", "a key of each one's own",
        bytes=schema.datasets.c.bytes, folder="datasets",
    ),
    Holding(
        "budgets of privacy", schema.privacy_budgets, schema.privacy_budgets.c.tenant,
        "what private training may spend of a data set's privacy", "the data set is erased",
        METADATA,
    ),
    Holding(
        "privacy that was spent", schema.privacy_spends, schema.privacy_spends.c.tenant,
        "what private training has spent of it", "the data set is erased", METADATA,
    ),
    Holding(
        "jobs", schema.jobs, schema.jobs.c.tenant,
        "what was trained, and how far it is", "the tenant is erased",
        "not sealed: specifications and metrics; its folder is there while it runs",
        folder="jobs",
    ),
    Holding(
        "events of jobs", schema.job_events, _events.scalar_subquery(),
        "what happened on the way", "the tenant is erased", "not sealed: metrics and states",
    ),
    Holding(
        "sessions", schema.sessions, schema.sessions.c.tenant,
        "training by calls, and where to go on", "the tenant is erased; folders, when closed",
        "not sealed: specifications; its folder is there until it is closed", folder="sessions",
    ),
    Holding(
        "files", schema.files, schema.files.c.tenant,
        "what batches read and write", "each one's own time, 30 days at the most", TENANT_KEY,
        bytes=schema.files.c.bytes, folder="files",
    ),
    Holding(
        "batches", schema.batches, schema.batches.c.tenant,
        "requests that are answered together", "90 days after they were made",
        f"{TENANT_KEY}: answers so far; not sealed: counts and the caller's metadata",
        folder="batches",
    ),
    Holding(
        "retained exchanges", schema.retained, schema.retained.c.tenant,
        "the tenant asked for it (retain_days)", "so many days after they were made",
        "a key of each day's own; not sealed: when, which model, how long",
    ),
    Holding(
        "days of retained exchanges", schema.retained_days, schema.retained_days.c.tenant,
        "where retained exchanges are", "as these", METADATA,
        bytes=schema.retained_days.c.bytes, folder="retained",
    ),
    Holding(
        "erasures", schema.erasures, schema.erasures.c.tenant,
        "proof of what was erased", "never", METADATA, "kept",
    ),
)  # fmt: skip
"""In the order in which an export tells of them."""

REMOVED_FIRST = ("events of jobs", "keys", "projects")
"""Rows that others are found by, or that refer to others: in this order, before all else."""

NOBODYS = frozenset(("changes", "prices"))
"""Tables that hold nothing of a tenant's."""

IN_MEMORY = (
    "prompts and answers while they are answered, in the gateway and in the worker that answers",
    "what an engine keeps of a prompt's beginning, until its model leaves memory, or sooner",
    "placeholders and what they stand for, while a request is answered",
    "answers to an Idempotency-Key, for a day at the most",
    "unsealed weights and data sets, while a process of this server works with them",
)
"""What touches no disk."""


def rows_of(holding: Holding, tenant: str) -> sa.ColumnElement[bool]:
    """A tenant's."""
    return holding.owner == tenant

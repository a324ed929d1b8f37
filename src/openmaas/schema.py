"""The tables of the database. Times are Unix seconds, but for ``usage.time``; money is in
nano-units (10⁻⁹) of the one currency, as whole numbers, so that sums are exact."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

PUBLIC = ""  # the owner of models that every tenant sees

# --- who may do what -------------------------------------------------------------------

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("weight", sa.Float, nullable=False),  # its share where compute is contended
    sa.Column("quota", sa.JSON, nullable=False),  # tenancy.quota.Quota
    # tenancy.privacy.PrivacyPolicy
    sa.Column("privacy", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("closed", sa.BigInteger),  # its keys are refused from then on
)

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenants.id"), primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("quota", sa.JSON, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("closed", sa.BigInteger),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False, unique=True),  # SHA-256 of the whole secret, hex
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("models", sa.JSON(none_as_null=True)),  # names that it may call; null: all
    sa.Column("quota", sa.JSON, nullable=False),
    # redaction.policy.RedactionPolicy that holds instead of the tenant's; null: the tenant's
    sa.Column("redaction", sa.JSON(none_as_null=True)),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger),
    sa.Column("revoked", sa.BigInteger),
    sa.ForeignKeyConstraint(["tenant", "project"], ["projects.tenant", "projects.id"]),
)

# One row, counted up by whatever changes who may do what: gateways look at it many times a second.
changes = sa.Table(
    "changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),  # a key's id, or the account at the command line
    sa.Column("tenant", sa.Text, nullable=False),  # whose things were changed; "": nobody's
    sa.Column("act", sa.Text, nullable=False),  # "key.create" …
    sa.Column("object", sa.Text, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),  # never a secret
)

# --- what data are sealed with -----------------------------------------------------------

data_keys = sa.Table(
    "data_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("object", sa.Text, nullable=False),  # a data set's id …; "": the tenant's own
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("wrapping", sa.Text, nullable=False),  # data_keys.id, or "master:" and its id
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("retired", sa.BigInteger),  # only what was sealed before is read with it
    sa.Column("rewrite", sa.Boolean, nullable=False),  # … and is to be sealed anew; then it goes
)
sa.Index(
    "data_keys_current",
    data_keys.c.tenant,
    data_keys.c.object,
    unique=True,
    sqlite_where=data_keys.c.retired.is_(None),
    postgresql_where=data_keys.c.retired.is_(None),
)

# --- what was used, and what it cost -----------------------------------------------------

prices = sa.Table(  # append-only: a new row replaces those before it
    "prices",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.Text, nullable=False),  # "*": every model that has no price of its own
    sa.Column("since", sa.BigInteger, nullable=False),
    # nano-units for a million of each
    sa.Column("input", sa.BigInteger, nullable=False),
    sa.Column("cached", sa.BigInteger, nullable=False),
    sa.Column("output", sa.BigInteger, nullable=False),
    sa.Column("row", sa.BigInteger, nullable=False),
    sa.Column("request", sa.BigInteger, nullable=False),
    sa.Column("second", sa.BigInteger, nullable=False),  # of training
)

usage = sa.Table(  # the ledger: a row for each finished request and each model that it used
    "usage",
    metadata,
    sa.Column("request", sa.Text, primary_key=True),  # grows with time, so rows are appended
    sa.Column("part", sa.Integer, primary_key=True),  # 0, or 1 … for further models
    sa.Column("time", sa.BigInteger, nullable=False),  # when it ended, milliseconds
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("priority", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),  # "ok", "cut" or an error's code
    sa.Column("input_tokens", sa.BigInteger, nullable=False),  # the cached ones among them
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.BigInteger, nullable=False),  # of training
    sa.Column("queue_us", sa.BigInteger, nullable=False),
    sa.Column("run_us", sa.BigInteger, nullable=False),
    sa.Column("price", sa.Integer, nullable=False),  # prices.id; 0: there was none
    sa.Column("cost", sa.BigInteger, nullable=False),  # nano-units
    sa.Column("idempotency", sa.Text),  # SHA-256 of the Idempotency-Key
    sqlite_with_rowid=False,
)
sa.Index(
    "usage_idempotency",
    usage.c.tenant,
    usage.c.idempotency,
    unique=True,
    sqlite_where=usage.c.idempotency.is_not(None),
    postgresql_where=usage.c.idempotency.is_not(None),
)

usage_days = sa.Table(  # sums of ``usage``, written in the same transaction
    "usage_days",
    metadata,
    sa.Column("day", sa.Integer, primary_key=True),  # 20261231, in UTC
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("task", sa.Text, primary_key=True),
    sa.Column("outcome", sa.Text, primary_key=True),
    sa.Column("price", sa.Integer, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.BigInteger, nullable=False),
    sa.Column("queue_us", sa.BigInteger, nullable=False),
    sa.Column("run_us", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.BigInteger, nullable=False),
    sa.Index("usage_days_of_tenant", "tenant", "day"),
    sqlite_with_rowid=False,
)

# --- what is served ------------------------------------------------------------------------

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),  # whose it is; PUBLIC: everybody sees it
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),  # 1, 2, 3 … within the model
    sa.Column("digest", sa.Text, nullable=False),  # of the artifact
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("licence", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),  # bytes on disk
    sa.Column("created", sa.BigInteger, nullable=False),
)

deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    # what is wanted
    sa.Column("runtime", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),  # why this runtime
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("min_replicas", sa.Integer, nullable=False),  # 0: it may leave memory
    sa.Column("max_replicas", sa.Integer, nullable=False),
    sa.Column("idle_seconds", sa.Float),  # after which it leaves; null: as the settings say
    sa.Column("kept", sa.Boolean, nullable=False),  # also where no alias leads to it
    sa.Column("generation", sa.BigInteger, nullable=False),  # grows with each deploy
    # what the gateway last saw
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("gateway_pid", sa.Integer),
    sa.Column("workers", sa.JSON, nullable=False),  # their process ids
    sa.Column("restarts", sa.Integer, nullable=False),
    # what it learnt
    sa.Column("memory", sa.BigInteger, nullable=False),  # most bytes of one worker; 0: unknown
    sa.Column("load_seconds", sa.Float, nullable=False),  # of one worker, the last time
    sa.Column("info", sa.JSON(none_as_null=True)),  # inference.ModelInfo; null: never loaded
)

aliases = sa.Table(
    "aliases",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("targets", sa.JSON, nullable=False),  # what answers: a list of {version, weight}
    # {targets, shadow, bounds}: what will be, once all of it is loaded
    sa.Column("pending", sa.JSON(none_as_null=True)),
    sa.Column("previous", sa.JSON(none_as_null=True)),  # as ``targets``: where a rollback leads
    sa.Column("shadow", sa.JSON(none_as_null=True)),  # {version, share}: asked too, never heard
    sa.Column("bounds", sa.JSON(none_as_null=True)),  # beyond which a canary is taken back
    sa.Column("detail", sa.Text, nullable=False),  # why it is as it is
    sa.Column("generation", sa.BigInteger, nullable=False),  # grows with each change
    sa.Column("changed", sa.BigInteger, nullable=False),
)

# --- training ------------------------------------------------------------------------------

uploads = sa.Table(  # bytes that arrive in pieces; the file is data_dir/uploads/ID
    "uploads",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),  # the caller's file name, never a path of ours
    sa.Column("size", sa.BigInteger, nullable=False),  # bytes when it is whole
    sa.Column("sha256", sa.Text),  # that the caller expects
    sa.Column("received", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("touched", sa.BigInteger, nullable=False),  # those long untouched are removed
)

datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # waiting, reading, ready or failed
    sa.Column("upload", sa.Text, nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("description", sa.JSON(none_as_null=True)),  # training.data.Description, when ready
    sa.Column("error", sa.JSON(none_as_null=True)),  # {code, message}, when failed
    sa.Column("bytes", sa.BigInteger, nullable=False),  # on disk
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("finished", sa.BigInteger),
    sa.Index("datasets_of_tenant", "tenant", "created"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),  # training.spec.JobSpec
    # queued, running, pausing, paused, cancelling, publishing, succeeded, failed, cancelled
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("progress", sa.JSON, nullable=False),  # epoch, epochs, step, metrics …
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("version", sa.Integer),  # of the model, when it is published
    sa.Column("seconds", sa.Float, nullable=False),  # of compute so far
    sa.Column("billed", sa.BigInteger, nullable=False),  # seconds that are in the ledger
    sa.Column("attempts", sa.Integer, nullable=False),  # starts of a trainer
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("started", sa.BigInteger),
    sa.Column("finished", sa.BigInteger),
    sa.Index("jobs_of_tenant", "tenant", "created"),
    sa.Index("jobs_by_state", "state"),
)

job_events = sa.Table(
    "job_events",
    metadata,
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),  # 1, 2, 3 …
    sa.Column("time", sa.BigInteger, nullable=False),  # milliseconds
    sa.Column("kind", sa.Text, nullable=False),  # state, epoch, step, checkpoint, message
    sa.Column("data", sa.JSON, nullable=False),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),  # what publish registers
    sa.Column("spec", sa.JSON, nullable=False),  # training.spec.SessionSpec
    sa.Column("state", sa.Text, nullable=False),  # open, idle (resumable), closed, failed
    sa.Column("step", sa.BigInteger, nullable=False),  # of its last checkpoint
    sa.Column("checkpoint", sa.Text),  # the name of its last
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("touched", sa.BigInteger, nullable=False),
    sa.Index("sessions_of_tenant", "tenant", "created"),
)

privacy_budgets = sa.Table(  # what may be learnt of a data set's rows in all
    "privacy_budgets",
    metadata,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("epsilon", sa.Float, nullable=False),
    sa.Column("delta", sa.Float, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
)

privacy_spends = sa.Table(  # one of each private job or session; it outlives its data set
    "privacy_spends",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # jobs.id or sessions.id
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # held, then settled
    sa.Column("epsilon", sa.Float, nullable=False),  # held: at most; settled: that was spent
    sa.Column("delta", sa.Float, nullable=False),
    sa.Column("steps", sa.BigInteger),  # that were taken; of a session, before their results
    sa.Column("most", sa.BigInteger),  # steps of a session
    sa.Column("event", sa.JSON(none_as_null=True)),  # what was composed, as dp-accounting has it
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("settled", sa.BigInteger),
    sa.Index("privacy_spends_of_dataset", "dataset"),
)

cards = sa.Table(  # how a trained version came to be
    "cards",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("card", sa.JSON, nullable=False),  # lineage, metrics, confusion, history …
    sa.Column("curve", sa.LargeBinary),  # the learning curve, PNG
)

# --- batches -------------------------------------------------------------------------------

files = sa.Table(  # what batches read and write; the file is data_dir/files/ID
    "files",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),  # the caller's file name, never a path of ours
    sa.Column("purpose", sa.Text, nullable=False),  # batch or batch_output
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Index("files_of_tenant", "tenant", "created"),
)

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # its lines' requests are called after it
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),  # for which its lines are asked
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("input", sa.Text, nullable=False),  # files.id
    sa.Column("metadata", sa.JSON(none_as_null=True)),  # the caller's own
    sa.Column("keep", sa.BigInteger, nullable=False),  # seconds, of what it writes
    # validating, failed, in_progress, finalizing, completed, expired, cancelling, cancelled
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("model", sa.Text),  # where all its lines name the same
    sa.Column("total", sa.Integer, nullable=False),  # lines
    sa.Column("completed", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("errors", sa.JSON(none_as_null=True)),  # why it failed: {code, message, line, param}
    sa.Column("usage", sa.JSON(none_as_null=True)),  # batches.records.Tokens, at its end
    sa.Column("output", sa.Text),  # files.id
    sa.Column("error", sa.Text),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    # when it came to each state
    sa.Column("in_progress_at", sa.BigInteger),
    sa.Column("finalizing_at", sa.BigInteger),
    sa.Column("completed_at", sa.BigInteger),
    sa.Column("failed_at", sa.BigInteger),
    sa.Column("expired_at", sa.BigInteger),
    sa.Column("cancelling_at", sa.BigInteger),
    sa.Column("cancelled_at", sa.BigInteger),
    sa.Index("batches_of_tenant", "tenant", "created"),
    sa.Index("batches_by_state", "state"),
)

# --- privacy -------------------------------------------------------------------------------

retained_days = sa.Table(  # what is kept of a day; the file is data_dir/retained/TENANT/DAY
    "retained_days",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("day", sa.Integer, primary_key=True),  # 20261231, in UTC
    sa.Column("bytes", sa.BigInteger, nullable=False),  # the file's: the next record begins there
    sa.Column("dropped", sa.BigInteger, nullable=False),  # exchanges for which there was no room
)

retained = sa.Table(  # requests and answers that a tenant has kept: where each is, not what it says
    "retained",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("request", sa.Text, primary_key=True),  # grows with time
    sa.Column("day", sa.Integer, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),  # when it was answered, milliseconds
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),  # as x-openmaas-model names it; "": none was asked
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("request_bytes", sa.BigInteger, nullable=False),  # of the whole body
    sa.Column("response_bytes", sa.BigInteger, nullable=False),
    sa.Column("cut", sa.Boolean, nullable=False),  # a body was longer than what is kept of it
    sa.Column("start", sa.BigInteger, nullable=False),  # of the sealed record in the day's file
    sa.Column("length", sa.BigInteger, nullable=False),
    sa.Index("retained_of_day", "tenant", "day"),
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # whoever knows it may read the record
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("object", sa.Text, nullable=False),  # datasets.id; "": all of the tenant
    sa.Column("state", sa.Text, nullable=False),  # requested, halted, unreadable, removed, done
    sa.Column("found", sa.JSON(none_as_null=True)),  # privacy.erasures.Found, once it is halted
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("requested", sa.BigInteger, nullable=False),
    sa.Column("unreadable", sa.BigInteger),  # when the keys were destroyed
    sa.Column("finished", sa.BigInteger),
    sa.Column("record", sa.JSON(none_as_null=True)),  # privacy.records.SignedRecord, when done
    sa.Index("erasures_of_tenant", "tenant", "requested"),
)

"""Tenants, projects, the ledger, prices, the audit log; models get owners, keys get tenants."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

DEFAULT = "default"
COUNTS = (
    "input_tokens", "cached_tokens", "output_tokens", "rows", "seconds", "queue_us", "run_us",
)  # fmt: skip


def upgrade() -> None:
    now = int(time.time())
    tenants = op.create_table(
        "tenants",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("quota", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("closed", sa.BigInteger),
    )
    projects = op.create_table(
        "projects",
        sa.Column("tenant", sa.Text, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("quota", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("closed", sa.BigInteger),
    )
    op.bulk_insert(tenants, [{"id": DEFAULT, "weight": 1.0, "quota": {}, "created": now}])
    op.bulk_insert(projects, [{"tenant": DEFAULT, "id": DEFAULT, "quota": {}, "created": now}])
    _keys()
    _models()
    changes = op.create_table(
        "changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(changes, [{"id": 1, "number": 0}])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("act", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    _ledger()


def _keys() -> None:
    op.rename_table("keys", "keys_1")
    op.create_table(
        "keys",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("models", sa.JSON),
        sa.Column("quota", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.Column("revoked", sa.BigInteger),
        sa.ForeignKeyConstraint(["tenant", "project"], ["projects.tenant", "projects.id"]),
        # Named, as PostgreSQL keeps the names of the renamed table's.
        sa.PrimaryKeyConstraint("id", name="keys_2_pkey"),
        sa.UniqueConstraint("hash", name="keys_2_hash_key"),
    )
    op.execute(
        "INSERT INTO keys (id, tenant, project, name, hash, scopes, quota, created, revoked) "
        "SELECT id, 'default', 'default', name, hash, "
        'CASE scope WHEN \'admin\' THEN \'["inference", "manage", "admin"]\' '
        "ELSE '[\"inference\"]' END, '{}', created, revoked FROM keys_1"
        if op.get_bind().dialect.name == "sqlite"
        else "INSERT INTO keys (id, tenant, project, name, hash, scopes, quota, created, revoked) "
        "SELECT id, 'default', 'default', name, hash, "
        'CASE scope WHEN \'admin\' THEN \'["inference", "manage", "admin"]\'::json '
        "ELSE '[\"inference\"]'::json END, '{}'::json, created, revoked FROM keys_1"
    )
    op.drop_table("keys_1")


def _models() -> None:
    op.rename_table("versions", "versions_1")
    op.create_table(
        "versions",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("licence", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "model", "version", name="versions_2_pkey"),
    )
    op.execute("INSERT INTO versions SELECT '', versions_1.* FROM versions_1")
    op.drop_table("versions_1")
    op.rename_table("deployments", "deployments_1")
    op.create_table(
        "deployments",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("runtime", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("gateway_pid", sa.Integer),
        sa.Column("worker_pid", sa.Integer),
        sa.Column("restarts", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "model", name="deployments_2_pkey"),
    )
    op.execute("INSERT INTO deployments SELECT '', deployments_1.* FROM deployments_1")
    op.drop_table("deployments_1")


def _ledger() -> None:
    op.create_table(
        "prices",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        *(
            sa.Column(unit, sa.BigInteger, nullable=False)
            for unit in ("input", "cached", "output", "row", "request", "second")
        ),
    )
    op.create_table(
        "usage",
        sa.Column("request", sa.Text, primary_key=True),
        sa.Column("part", sa.Integer, primary_key=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in (
                "tenant", "project", "key", "model", "version", "task", "priority", "outcome",
            )
        ),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
        sa.Column("price", sa.Integer, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("idempotency", sa.Text),
        sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_index(
        "usage_idempotency",
        "usage",
        ["tenant", "idempotency"],
        unique=True,
        sqlite_where=sa.text("idempotency IS NOT NULL"),
        postgresql_where=sa.text("idempotency IS NOT NULL"),
    )
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Integer, primary_key=True),
        *(
            sa.Column(name, sa.Text, primary_key=True)
            for name in ("tenant", "project", "key", "model", "version", "task", "outcome")
        ),
        sa.Column("price", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("requests", *COUNTS)),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("usage_days_of_tenant", "usage_days", ["tenant", "day"])

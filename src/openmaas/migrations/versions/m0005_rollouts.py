"""Several versions of a model are deployed at once, and aliases say which of them answer."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.rename_table("deployments", "deployments_2")
    deployments = op.create_table(
        "deployments",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("runtime", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("min_replicas", sa.Integer, nullable=False),
        sa.Column("max_replicas", sa.Integer, nullable=False),
        sa.Column("idle_seconds", sa.Float),
        sa.Column("kept", sa.Boolean, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("gateway_pid", sa.Integer),
        sa.Column("workers", sa.JSON, nullable=False),
        sa.Column("restarts", sa.Integer, nullable=False),
        sa.Column("memory", sa.BigInteger, nullable=False),
        sa.Column("load_seconds", sa.Float, nullable=False),
        sa.Column("info", sa.JSON(none_as_null=True)),
        sa.PrimaryKeyConstraint("tenant", "model", "version", name="deployments_3_pkey"),
    )
    aliases = op.create_table(
        "aliases",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("alias", sa.Text, primary_key=True),
        sa.Column("targets", sa.JSON, nullable=False),
        sa.Column("pending", sa.JSON(none_as_null=True)),
        sa.Column("previous", sa.JSON(none_as_null=True)),
        sa.Column("shadow", sa.JSON(none_as_null=True)),
        sa.Column("bounds", sa.JSON(none_as_null=True)),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
    old = sa.text(
        "SELECT tenant, model, version, runtime, reason, options, generation, state, detail, "
        "restarts FROM deployments_2"
    ).columns(options=sa.JSON)
    rows = op.get_bind().execute(old).mappings().all()
    if rows:
        more = {
            "kept": False,
            "min_replicas": 0, "max_replicas": 1, "workers": [], "memory": 0, "load_seconds": 0.0,
            "info": None,
        }  # fmt: skip
        op.bulk_insert(deployments, [{**row, **more} for row in rows])
        op.bulk_insert(aliases, [_live(row) for row in rows])
    op.drop_table("deployments_2")


def _live(row: sa.RowMapping) -> dict[str, object]:
    return {
        "tenant": row["tenant"],
        "model": row["model"],
        "alias": "live",
        "targets": [{"version": row["version"], "weight": 100.0}],
        "pending": None,
        "previous": None,
        "shadow": None,
        "bounds": None,
        "detail": "",
        "generation": 1,
        "changed": int(time.time()),
    }

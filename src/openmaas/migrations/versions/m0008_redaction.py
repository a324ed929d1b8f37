"""Tenants and keys have policies of privacy."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    policy = sa.Column("privacy", sa.JSON, nullable=False, server_default="{}")
    op.add_column("tenants", policy)
    op.add_column("keys", sa.Column("redaction", sa.JSON(none_as_null=True)))

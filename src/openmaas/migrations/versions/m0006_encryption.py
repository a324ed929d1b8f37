"""What is stored of tenants is sealed, with keys of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "data_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("wrapping", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("retired", sa.BigInteger),
        sa.Column("rewrite", sa.Boolean, nullable=False),
    )
    current = sa.text("retired IS NULL")
    op.create_index(
        "data_keys_current",
        "data_keys",
        ["tenant", "object"],
        unique=True,
        sqlite_where=current,
        postgresql_where=current,
    )

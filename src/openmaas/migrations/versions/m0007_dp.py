"""Data sets have budgets of privacy."""

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    pass

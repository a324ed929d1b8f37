"""What is erased leaves a signed record; what is retained has an end."""

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    pass

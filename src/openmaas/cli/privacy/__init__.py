"""``openmaas privacy …``: one file per group of commands."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="What is done for a tenant's privacy, and what is held of it.", no_args_is_help=True
)

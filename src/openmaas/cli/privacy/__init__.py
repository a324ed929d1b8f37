"""``openmaas privacy …``: one file per group of commands."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="What is done for a tenant's privacy, and what is held of it.", no_args_is_help=True
)


def register(root: typer.Typer, panel: str) -> None:
    from openmaas.cli.privacy import erasing, held, policy, sealing

    for module in (policy, held, erasing, sealing):
        module.register(app)
    root.add_typer(app, name="privacy", rich_help_panel=panel)

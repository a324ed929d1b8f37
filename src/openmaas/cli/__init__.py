"""The command line: one file per group of commands, put together here.

Commands import what they run only when they run, so that ``--help`` and ``chat`` are quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from openmaas import __version__
from openmaas.cli import (
    batches,
    chat,
    datasets,
    deployments,
    diagnosis,
    explain,
    explain_model,
    keys,
    models,
    predict,
    privacy,
    rollouts,
    serve,
    tasks,
    tenants,
    training,
    usage,
)
from openmaas.cli.screen import fail
from openmaas.errors import OpenMaaSError

app = typer.Typer(
    name="openmaas",
    help="Model as a Service on your own machines.",
    epilog="Begin with:\n\nopenmaas models pull --starters --deploy\n\nopenmaas serve",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SERVER, REGISTRY = "The server", "Models on this machine"
TENANCY, CLIENT, TRAINING = "Who may use it", "Talking to a server", "Training on a server"

serve.register(app, SERVER)
deployments.register(app, SERVER)
rollouts.register(app, SERVER)
diagnosis.register(app, SERVER)
app.add_typer(models.app, name="models", rich_help_panel=REGISTRY)
app.add_typer(tenants.tenants, name="tenants", rich_help_panel=TENANCY)
app.add_typer(tenants.projects, name="projects", rich_help_panel=TENANCY)
app.add_typer(keys.app, name="keys", rich_help_panel=TENANCY)
privacy.register(app, TENANCY)
usage.register(app, TENANCY)
chat.register(app, CLIENT)
tasks.register(app, CLIENT)
predict.register(app, CLIENT)
explain.register(app, CLIENT)
explain_model.register(app, CLIENT)
batches.register(app, CLIENT)
datasets.register(app, TRAINING)
training.register(app, TRAINING)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Says which it is.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs a command. Its exit status is 0, 1 if it could not do it, 2 if it was asked wrongly."""
    try:
        app()
    except OpenMaaSError as error:
        fail(str(error))
        sys.exit(1)

"""``openmaas doctor``."""

from __future__ import annotations

import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.screen import out, say

EXAMPLES = "[bold]Example[/]\n\nopenmaas doctor"

MARKS = {"ok": ("✓", "green"), "lacking": ("!", "yellow"), "missing": ("✗", "red")}


def register(app: typer.Typer, panel: str) -> None:
    app.command(epilog=EXAMPLES, rich_help_panel=panel)(doctor)


def doctor(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Says what this machine can run, what is missing, and the command that mends it.

    Its exit status is 1 if something is missing without which nothing is served.
    """
    from openmaas.doctor import examine

    chosen = folder.settings(config, data_dir=data_dir)
    with out.status("looking"):
        findings = examine(chosen)
    for one in findings:
        mark, style = MARKS[one.state]
        say(f"{mark} {one.subject:<18} {one.what}", "" if one.state == "ok" else style)
        if one.mend:
            say(f"  {'':<18} → {one.mend}")
    if any(one.state == "missing" for one in findings):
        raise typer.Exit(1)

"""Help that teaches: every command says what it does and shows an example."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from openmaas import __version__
from openmaas.cli import app


def commands() -> Iterator[tuple[str, ...]]:
    """Every command there is, as it is typed."""
    yield from _below(typer.main.get_command(app), ())


def _below(command: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    children = getattr(command, "commands", None)
    if not children:
        yield path
        return
    for name, child in children.items():
        yield from _below(child, (*path, name))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="openmaas")


def test_the_commands_are_those_that_are_promised() -> None:
    promised = {
        *[
            ("serve",),
            ("deploy",),
            ("undeploy",),
            ("status",),
            ("promote",),
            ("rollback",),
            ("alias",),
            ("doctor",),
            ("chat",),
            ("predict",),
            ("explain",),
            ("explain-model",),
            *[(task,) for task in ("classify", "sentiment", "entities", "summarize", "translate")],
        ],
        *[("models", name) for name in ("pull", "push", "list", "show", "remove")],
        *[("keys", name) for name in ("create", "list", "quota", "rotate", "revoke")],
        *[("tenants", name) for name in ("create", "list", "change", "close")],
        *[("projects", name) for name in ("create", "list", "quota", "close")],
        *[("batch", name) for name in ("run", "list", "show", "cancel")],
        ("train",),
        *[("jobs", name) for name in ("list", "show", "watch", "pause", "resume", "cancel")],
        *[("datasets", name) for name in ("push", "list", "show", "budget", "remove")],
        *[("usage", name) for name in ("sum", "export", "statement")],
        *[("prices", name) for name in ("set", "list")],
        ("audit",),
        *[("privacy", name) for name in ("policy", "redact", "report", "export", "retained")],
        *[("privacy", name) for name in ("erase", "erasures", "verify")],
        *[("privacy", name) for name in ("rotate", "rotate-master")],
    }
    assert set(commands()) == promised


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_help_has_an_example_of_the_command_itself(command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.exit_code == 0, done.output
    words = " ".join(done.stdout.split())
    assert "Example" in words
    example = words.split("Example", 1)[1]
    assert f"openmaas {' '.join(command)}" in example


def test_without_a_command_the_help_is_shown() -> None:
    done = run()
    assert "openmaas serve" in done.stdout + done.stderr


def test_version() -> None:
    assert run("--version").stdout.strip() == __version__


def test_a_wrong_option_is_a_usage_error() -> None:
    done = run("serve", "--prot", "8000")
    assert done.exit_code == 2
    assert "--prot" in done.stderr

"""The documents say what the code says; they fail here when they go stale."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from openmaas.app import build_server, open_store
from openmaas.config import Limits, Settings, load
from openmaas.errors import BY_CODE, RegistryError
from openmaas.gateway import errors as wire_errors
from openmaas.registry.catalog import Catalog
from openmaas.runtimes import NAMES
from openmaas.serving.batching import Batching
from openmaas.serving.choice import CHOICES
from openmaas.training.parameters import KINDS
from tests.cli.test_help import commands
from tests.processes import ServerProcess, cli, serving

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
PAGES = {"README.md": README, **DOCS}


def rows(page: str) -> list[list[str]]:
    """Cells of every table row of a page."""
    lines = [line for line in DOCS[page].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# --- settings, commands, endpoints, errors -----------------------------------------------


def test_the_table_of_settings_is_that_of_the_code() -> None:
    told = {row[0].strip("`"): row for row in rows("operate.md") if "OPENMAAS_" in row[1]}
    real = {
        name: getattr(Settings(), name) for name in Settings.__struct_fields__ if name != "limits"
    } | {f"limits.{name}": getattr(Limits(), name) for name in Limits.__struct_fields__}
    assert list(told) == list(real)
    for name, value in real.items():
        _, variable, default, _ = told[name]
        assert variable == f"`OPENMAAS_{name.upper().replace('.', '_')}`"
        shown = "none" if value is None else msgspec.json.encode(value).decode().strip('"')
        assert default.strip("`") == shown, name


def test_every_deploy_option_is_told_of() -> None:
    told: dict[str, set[str]] = {}
    for row in rows("operate.md"):
        if len(row) == 3 and row[1].startswith("`"):
            told.setdefault(row[0].strip("`"), set()).add(row[1].strip("`"))
    real = {"those that batch": {f"batch_{name}" for name in Batching.__struct_fields__}}
    for runtime in sorted({runtime for runtime, _ in CHOICES.values()}):
        # Read from the source: importing it would load its engine into this process.
        folder = ROOT / "src" / "openmaas" / "runtimes"
        source = (folder / f"{runtime}.py").read_text()
        if "openvino_texts" in source:  # these runtimes share theirs
            source = (folder / "openvino_texts.py").read_text()
        (options,) = (
            node.value
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "OPTIONS"
        )
        names = options.keys if isinstance(options, ast.Dict) else options.elts
        real[runtime] = {ast.literal_eval(name) for name in names}
    assert told == real


def test_every_recipe_and_its_parameters_are_told_of() -> None:
    told = {}
    for row in rows("training.md"):
        for name in re.findall(r"`(\w+)`", row[0]):
            if len(row) == 4 and name in KINDS:
                told[name] = dict(re.findall(r"`(\w+)` ([\w.]+)", row[3]))
                told[name] |= dict.fromkeys(re.findall(r"`(\w+_language)`", row[3]), "")
    real = {}
    for name, kind in KINDS.items():
        given = msgspec.to_builtins(kind())
        real[name] = {
            one: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for one, value in given.items()
        }
    assert told == real


def test_the_settings_file_in_the_documents_is_accepted(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCS["operate.md"], re.DOTALL)
    (tmp_path / "openmaas.toml").write_text(example)
    assert load(tmp_path / "openmaas.toml", {}, {}).limits.queue == 64


def test_every_command_is_told_of() -> None:
    told = {row[0].strip("`") for row in rows("operate.md") if row[0].startswith("`openmaas ")}
    assert told == {f"openmaas {' '.join(path)}" for path in commands()}


def test_every_endpoint_is_told_of_with_its_scope(tmp_path: Path) -> None:
    settings = load(None, {}, {"data_dir": str(tmp_path)})
    server = build_server(settings, open_store(settings))
    told = {
        row[0].strip("`"): row[2]
        for row in rows("api.md")
        if row[0].startswith(("`GET ", "`POST ", "`PUT ", "`PATCH ", "`DELETE "))
    }
    real = {f"{e.method} {e.path}": e.scope or "none" for e in server.endpoints}
    assert told == real


def test_every_error_that_a_client_meets_is_told_of_with_its_status() -> None:
    told = {row[1].strip("`"): int(row[0]) for row in rows("api.md") if row[0].isdigit()}
    real = {
        code: wire_errors.row(error("…"))[0]
        for code, error in BY_CODE.items()
        if not issubclass(error, RegistryError) and code != "abandoned"  # nobody is there to tell
    }
    assert told == real


def test_every_limit_is_told_of_in_the_api() -> None:
    told = set(re.findall(r"`limits\.(\w+)`", DOCS["api.md"]))
    assert told == set(Limits.__struct_fields__) - {
        "load_seconds",
        "step_seconds",
        "drain_seconds",
    }


# --- models ------------------------------------------------------------------------------


def test_the_catalog_is_told_of_with_its_licences() -> None:
    entries = Catalog.read().entries
    told = {row[0].strip("`"): row[2] for row in rows("models.md") if len(row) == 3}
    third_party = (ROOT / "THIRD_PARTY.md").read_text()
    for name, entry in entries.items():
        assert told[name] == entry.licence
        assert f"`{name}`" in third_party or entry.source.startswith("file:")


def test_formats_and_their_runtimes_are_told_of() -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in rows("models.md") if len(row) == 2}
    assert {name: told.get(name) for name in CHOICES} == {
        name: runtime for name, (runtime, _) in CHOICES.items()
    }
    for runtime in NAMES:
        assert runtime in DOCS["models.md"]


def test_every_pinned_package_has_its_licence_told() -> None:
    third_party = (ROOT / "THIRD_PARTY.md").read_text()
    locked = (ROOT / "requirements.txt").read_text()
    told = set(re.findall(r"[\w-]+", third_party.split("## Installed with the base")[1]))
    assert set(re.findall(r"^([\w.-]+)==", locked, re.MULTILINE)) <= told


# --- structures --------------------------------------------------------------------------


def test_the_structures_name_every_folder_and_module() -> None:
    package = ROOT / "src" / "openmaas"
    folders = {p.name for p in package.iterdir() if p.is_dir() and p.name != "__pycache__"}
    modules = {p.name for p in package.glob("*.py") if p.name != "__init__.py"}
    told = set(re.findall(r"`src/openmaas/([\w.]+)/?`", DOCS["structures.md"]))
    assert told == folders | modules


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_exists(page: str) -> None:
    named = re.findall(
        r"`([\w./-]+/[\w.-]*\.(?:py|toml|md|json|onnx)|[\w-]+/[\w./-]*/)`", PAGES[page]
    )
    places = (ROOT, ROOT / "src" / "openmaas")
    built = {
        "artifacts/",
        "run/",
        "datasets/",
        "uploads/",
        "files/",
        "batches/",
    }  # in the data folder
    missing = [
        name for name in named if name not in built and not any((p / name).exists() for p in places)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    base = ROOT if page == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\(([^)#]+)\)", PAGES[page]):
        assert (base / target).exists(), target


def test_the_life_of_a_request_has_eight_steps() -> None:
    steps = re.findall(r"^(\d)\. \*\*", DOCS["structures.md"], re.MULTILINE)
    assert steps == list("12345678")


# --- what the README tells people to type ------------------------------------------------


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


SHELL = [block for page in (README, DOCS["api.md"], DOCS["training.md"], DOCS["explain.md"])
         for block in blocks("sh", page) if "make serve" not in block]  # fmt: skip
SHELL = list(dict.fromkeys(SHELL))  # what both tell of is run once
PROGRAMS = [*blocks("python"), *(one for page in ("api.md", "training.md", "explain.md")
                                 for one in blocks("python", DOCS[page])
                                 if one.startswith("import"))]  # fmt: skip


@pytest.mark.parametrize("block", SHELL, ids=lambda block: str(block).split("\n")[0][:40])
def test_the_shell_commands_work(block: str, server: ServerProcess, tmp_path: Path) -> None:
    done = typed(block, ["bash", "-euo", "pipefail", "-c", block], server, tmp_path)
    assert done.stdout.strip()
    assert re.search(r'"error":\s*[^n\s]', done.stdout) is None  # null: there is none


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: str(block).split("\n")[1])
def test_the_programs_work(block: str, server: ServerProcess, tmp_path: Path) -> None:
    typed(block, [sys.executable, "-W", "error", "-c", block], server, tmp_path)


def test_a_rollout_works_as_it_is_told(data: Path, tmp_path: Path) -> None:
    cli(data, "deploy", "digits")
    (shell,) = blocks("sh", DOCS["rollouts.md"])
    (program,) = blocks("python", DOCS["rollouts.md"])
    with serving(data) as running:
        done = typed(shell, ["bash", "-euo", "pipefail", "-c", shell], running, tmp_path)
        assert "digits@live → version 1 100 %" in done.stdout
        assert "shadow: version 2" in done.stdout
        assert "digits@next → version 2 100 %" in done.stdout
        typed(program, [sys.executable, "-W", "error", "-c", program], running, tmp_path)


def typed(
    block: str, command: list[str], server: ServerProcess, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Runs a block in the repository's root, with an ``openmaas`` on the path."""
    shim = folder / "openmaas"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m openmaas.cli "$@"\n')
    shim.chmod(0o755)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ
        | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "OPENMAAS_DATA_DIR": str(server.data),
            "OPENMAAS_URL": server.url,
            "OPENMAAS_API_KEY": server.key,
        },
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    return done


def test_the_transcript_is_what_the_server_prints(server: ServerProcess) -> None:
    """Line by line, with keys, ports, seconds and the path of ``openmaas`` made alike."""
    (transcript,) = blocks("text")
    told = transcript[transcript.index("Serving at") :]

    def printed() -> bool:  # a model answers a moment before its line is there
        return alike(told) <= alike(server.log.read_text()) | FIRST_KEY

    server.wait_until(printed, 10)


def test_the_transcript_begins_as_make_does(starters: Path) -> None:
    (transcript,) = blocks("text")
    makefile = (ROOT / "Makefile").read_text()
    before = transcript[: transcript.index("Serving at")].splitlines()
    listed = {line.split()[0]: line for line in cli(starters, "models", "list").splitlines()}
    for line in before:
        if line.startswith("✓ "):
            name, version, form, size = re.fullmatch(
                r"✓ (\S+): version (\d+), (\S+), (.+)", line
            ).groups()  # type: ignore[union-attr]
            assert [version, form, *size.split()] == [
                cell for i, cell in enumerate(listed[name].split()[1:6]) if i != 1
            ]
        else:
            assert f'@echo "{line}"' in makefile


# Printed only where no key was known beforehand; tests/cli/test_serve.py looks at that.
FIRST_KEY = {
    "Admin key     KEY",
    "              It is shown this once; `keys create NAME` makes more.",
}


def alike(text: str) -> set[str]:
    """Lines of a transcript without what differs from one run to the next."""
    text = re.sub(r"http://127\.0\.0\.1:\d+", "URL", text)
    text = re.sub(r"om-…|<your key>", "KEY", text)
    text = re.sub(r"\d+\.\d s", "TIME", text).replace(".venv/bin/openmaas", "openmaas")
    return {line.rstrip() for line in text.splitlines() if line.strip()}

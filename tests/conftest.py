"""What all tests share: the starter models, imported once, and one server that has them all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.postgres import Postgres
from tests.processes import ServerProcess, pulled, serving
from tests.stores import ME, deploy, opened

# What breaks servers on purpose and what goes from raw data to answers: left to `make soak-tests`.
SLOW = ("faults", "journeys")
STARTERS = ("smollm2-135m", "minilm-l6-v2", "digits", "sentiment", "entities", "en-pt", "pt-en")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def starters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the starter models pulled and nothing deployed. Read it, copy it."""
    return pulled(tmp_path_factory, "starters", STARTERS)


@pytest.fixture(scope="session")
def server(starters: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with the starter models and the chat model ``echo``."""
    data = tmp_path_factory.mktemp("server") / "data"
    shutil.copytree(starters, data)
    for model in STARTERS:
        deploy(data, model)
    deploy_echo(data)
    with serving(data) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """What makes a test run on SQLite, then on PostgreSQL: ``None``, then a fresh database."""
    if request.param == "sqlite":
        return None
    server: Postgres = request.getfixturevalue("postgres")
    return server.url(server.database())


@pytest.fixture(scope="session")
def digits_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data folder: ``digits`` pulled, nothing deployed."""
    return pulled(tmp_path_factory, "digits", ["digits"])


@pytest.fixture
def data(digits_only: Path, tmp_path: Path) -> Path:
    """A copy of ``digits_only`` for a test that changes it."""
    return Path(shutil.copytree(digits_only, tmp_path / "data"))


def deploy_echo(
    data: Path,
    name: str = "echo",
    tenant: str = "",
    database_url: str | None = None,
    **options: object,
) -> None:
    """Deploys the echo runtime under a name, on the bytes of an artifact that it ignores."""
    with opened(data, database_url) as store:
        if (tenant, name) not in {(one.tenant, one.model) for one in store.records.versions()}:
            with opened(data) as folder:  # where it was pulled to
                version = folder.records.version("digits")
            echo = msgspec.structs.replace(version, model=name, task="chat", tenant=tenant)
            store.records.add(echo, ME)
    deploy(
        data,
        name,
        tenant=tenant,
        database_url=database_url,
        runtime="echo",
        **{"task": "chat", **options},
    )

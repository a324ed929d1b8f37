"""What is promised of an overloaded, crashing, hanging or leaving part, measured: one row each.

Usage: ``promises.py [--only L1,F2] [--kills 20] [--seconds 8]``. The models are the echo runtime
and ``digits``. What is timed closely is sent by a process of its own: ``paced.py``, ``streams.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
from report import machine, number, table  # noqa: E402
from tests.conftest import deploy_echo  # noqa: E402
from tests.processes import alive, cli, serving  # noqa: E402

from openmaas.client import ApiError, Client  # noqa: E402

HERE = Path(__file__).parent
DIGITS = ROOT / "src/openmaas/registry/starter/digits.onnx"
ROW = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}]}
MIB = 1 << 20
Row = tuple[str, str, str, str]  # id, what was done, the bar, what was seen


def chat(model: str, text: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@contextlib.contextmanager
def folder(base: Path) -> Iterator[Path]:
    """A copy of a data folder with ``digits``."""
    with tempfile.TemporaryDirectory(prefix="openmaas-promises-") as scratch:
        data = Path(scratch) / "data"
        shutil.copytree(base, data)
        yield data


def generator(script: str, *words: object) -> Any:
    """Runs a load generator to its end; the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def bodies(data: Path, *requests: dict[str, Any]) -> Path:
    path = data / "bodies.jsonl"
    path.write_text("\n".join(map(json.dumps, requests)) + "\n")
    return path


def quantile(values: list[float], at: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(at * len(ordered)))]


# --- load ---------------------------------------------------------------------------------


def l1(base: Path, kills: int, seconds: float) -> Row:
    with folder(base) as data:
        deploy_echo(data, "slow", tokens_per_second=5)
        with serving(data) as server:
            tokens = int(seconds * 5)
            one = chat("slow", "a b c", stream=True, max_tokens=tokens,
                       stream_options={"include_usage": True})  # fmt: skip
            path = bodies(data, *[one] * 200)
            seen = generator("streams.py", f"{server.url}/v1/chat/completions", path, 200,
                             server.key)  # fmt: skip
    first = quantile(seen["first_seconds"], 0.99) - 0.2  # the runtime's own first token is due then
    return ("L1", "200 streams at 5 tokens/s", "0 errors; first token +500 ms (p99)",
            f"{200 - len(seen['first_seconds'])} errors; +{first * 1000:.0f} ms")  # fmt: skip


def l2(base: Path, kills: int, seconds: float) -> Row:
    with folder(base) as data:
        deploy_echo(data, "fast")
        with serving(data) as server:
            path = bodies(data, chat("fast", "a b c", max_tokens=4))
            url = f"{server.url}/v1/chat/completions"
            seen = generator("paced.py", url, path, 100, seconds, server.key)
    return ("L2", "100 short requests/s", "0 failed; p99 200 ms",
            f"{seen['failed']} failed; p99 {quantile(seen['ms'], 0.99):.1f} ms")  # fmt: skip


def l3(base: Path, kills: int, seconds: float) -> Row:
    """Eight places that each give 5 answers a second, asked for 160 a second."""
    capacity = 8 * 5
    with folder(base) as data:
        deploy_echo(data, "slow", tokens_per_second=50, slots=8)
        with serving(data, OPENMAAS_LIMITS_QUEUE="32") as server:
            good, refused, resets, unhinted = 0, list[float](), 0, 0
            stop = time.monotonic() + seconds
            lock = threading.Lock()

            def load(_: int) -> None:
                nonlocal good, resets, unhinted
                body = chat("slow", "a b c", max_tokens=10)
                headers = {"Authorization": f"Bearer {server.key}"}
                with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
                    while time.monotonic() < stop:
                        began = time.monotonic()
                        try:
                            answer = client.post("/v1/chat/completions", json=body)
                        except httpx.TransportError:
                            with lock:
                                resets += 1
                            continue
                        took = time.monotonic() - began
                        with lock:
                            if answer.status_code == 200:
                                good += 1
                            else:
                                refused.append(took)
                                unhinted += "retry-after" not in answer.headers
                        if answer.status_code != 200:
                            time.sleep(0.2)  # 40 callers that come back five times a second

            with ThreadPoolExecutor(72) as pool:
                list(pool.map(load, range(72)))
    return ("L3", "4 times the capacity", "refused in 1 s with Retry-After; 0 resets; 90 %",
            f"{len(refused)} refused, p99 {quantile(refused, 0.99) * 1000:.0f} ms, {unhinted} "
            f"without a hint; {resets} resets; {good / seconds / capacity:.0%}")  # fmt: skip


# --- faults -------------------------------------------------------------------------------


def f1(base: Path, kills: int, seconds: float) -> Row:
    with folder(base) as data:
        deploy_echo(data, "fast", tokens_per_second=200)
        cli(data, "deploy", "digits")
        with serving(data) as server:
            stop, seen = threading.Event(), dict[str, list[tuple[int, float]]](fast=[], digits=[])

            def load(model: str) -> None:
                headers = {"Authorization": f"Bearer {server.key}"}
                with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
                    while not stop.is_set():
                        began = time.monotonic()
                        if model == "fast":
                            body = chat("fast", "a b c", max_tokens=20)
                            answer = client.post("/v1/chat/completions", json=body)
                        else:
                            answer = client.post("/v2/models/digits/infer", json=ROW)
                        seen[model].append((answer.status_code, time.monotonic() - began))

            back: list[float] = []
            with ThreadPoolExecutor(4) as pool:
                jobs = [pool.submit(load, name) for name in ("fast", "fast", "digits", "digits")]
                for _ in range(kills):
                    time.sleep(random.uniform(0.3, 0.8))
                    pid = server.worker_pid("fast")
                    assert pid is not None
                    os.kill(pid, signal.SIGKILL)
                    began, before = time.monotonic(), len(seen["fast"])
                    while all(status != 200 for status, _ in seen["fast"][before:]):
                        time.sleep(0.01)
                    back.append(time.monotonic() - began)
                stop.set()
                for job in jobs:
                    job.result()
    failed = [took for status, took in seen["fast"] if status != 200]
    others = sum(status != 200 for status, _ in seen["digits"])
    return ("F1", f"kill -9 of a worker, {kills} times", "its own calls, in 2 s; back in 5 s",
            f"{len(failed)} failed (2 callers), slowest {max(failed, default=0):.2f} s; "
            f"{others} of others; back in {max(back):.2f} s at the most")  # fmt: skip


def f2(base: Path, kills: int, seconds: float) -> Row:
    """The gateway is killed while aliases change; all that was acknowledged must be there."""
    with folder(base) as data:
        cli(data, "deploy", "digits")
        cli(data, "models", "push", "digits", str(DIGITS), "--licence", "MIT")
        ready, lost, orphans, broken = [], 0, 0, 0
        weights = {1: 100.0}
        for round_ in range(kills):
            began = time.monotonic()
            with serving(data) as server, Client(server.url, server.key) as client:
                ready.append(time.monotonic() - began)
                now = client.deployments.alias("digits")
                told = {one["version"]: one["weight"] for one in now["targets"]}
                pending = {one["version"]: one["weight"] for one in now["pending"] or []}
                lost += weights not in (told, pending)

                def change(client: Client = client) -> None:
                    nonlocal weights
                    with contextlib.suppress(Exception):
                        for percent in range(1, 99):
                            new = {1: 100.0 - percent, 2: float(percent)}
                            client.deployments.point("digits", new)
                            weights = new

                thread = threading.Thread(target=change)
                thread.start()
                time.sleep(0.2 + 0.13 * (round_ % 7))
                children = server.children()
                server.process.kill()
                server.process.wait()
                thread.join()
                until = time.monotonic() + 10
                while any(map(alive, children)) and time.monotonic() < until:
                    time.sleep(0.02)
                orphans += sum(map(alive, children))
            with contextlib.closing(sqlite3.connect(data / "openmaas.db")) as database:
                check = database.execute("PRAGMA integrity_check").fetchall()
            broken += check != [("ok",)]
    return ("F2", f"kill -9 of the gateway in a rollout, {kills} times",
            "ready in 10 s; nothing acknowledged lost; no orphan",
            f"ready in {max(ready):.1f} s at the most; {lost} lost; {orphans} orphans; "
            f"{broken} damaged databases")  # fmt: skip


def f6(base: Path, kills: int, seconds: float) -> Row:
    with folder(base) as data:
        log = data / "tokens.jsonl"
        deploy_echo(data, "slow", tokens_per_second=20, token_log=str(log))
        with serving(data) as server:
            stopped = []
            for stream in (True, False, True, False):
                body = chat("slow", "a b c", stream=stream, max_tokens=4000)
                headers = {"Authorization": f"Bearer {server.key}"}
                with contextlib.suppress(httpx.ReadTimeout), httpx.stream(
                    "POST", f"{server.url}/v1/chat/completions", json=body, headers=headers,
                    timeout=0.5 if not stream else 5,
                ) as answer:  # fmt: skip
                    lines = answer.iter_lines()
                    for _ in range(5):
                        next(lines)
                left = time.time()
                time.sleep(2)
                stopped.append(log.stat().st_mtime - left)
    return ("F6", "clients leave, streaming and not", "compute stops in 1 s",
            f"{max(0.0, *stopped):.2f} s at the most")  # fmt: skip


def f7(base: Path, kills: int, seconds: float) -> Row:
    with folder(base) as data:
        deploy_echo(data, "fast")
        cli(data, "deploy", "digits")
        with serving(data) as server:
            path = bodies(data, ROW)
            url = f"{server.url}/v2/models/digits/infer"
            alone = generator("paced.py", url, path, 100, seconds, server.key)
            before = server.rss()
            parts = urlsplit(server.url)
            lorises = [socket.create_connection((parts.hostname, parts.port)) for _ in range(200)]
            readers = []
            for _ in range(50):
                one = socket.socket()
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                one.connect((parts.hostname, parts.port))
                body = json.dumps(chat("fast", "abc", stream=True, max_tokens=4000)).encode()
                head = (
                    f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                    f"Authorization: Bearer {server.key}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n"
                )
                one.sendall(head.encode() + body)
                readers.append(one)
            stop = threading.Event()

            def trickle() -> None:
                while not stop.wait(0.2):
                    for one in lorises:
                        with contextlib.suppress(OSError):
                            one.sendall(b"P")

            thread = threading.Thread(target=trickle)
            thread.start()
            time.sleep(2)
            beside = generator("paced.py", url, path, 100, seconds, server.key)
            grown = server.rss() - before
            stop.set()
            thread.join()
            for one in (*lorises, *readers):
                one.close()
    a, b = quantile(alone["ms"], 0.99), quantile(beside["ms"], 0.99)
    return ("F7", "200 slow senders, 50 slow readers", "others' p99 2 times; 1 MiB a stream",
            f"{b / a:.2f} ({a:.1f} to {b:.1f} ms), {beside['failed']} failed; "
            f"{grown / MIB / 50:.2f} MiB")  # fmt: skip


def f8(base: Path, kills: int, seconds: float) -> Row:
    with folder(base) as data:
        deploy_echo(data, "fast", oom_mib=500)
        with serving(data, OPENMAAS_LIMITS_REQUEST_SECONDS="3") as server:
            before = server.rss()

            def ask(text: str) -> int:
                return server.client.post(
                    "/v1/chat/completions", json=chat("fast", text)
                ).status_code

            ask("<<oom>>")
            server.wait_until(lambda: ask("hi") == 200, 30)
            pid, began = server.worker_pid("fast"), time.monotonic()
            ask("<<hang>>")
            server.wait_until(lambda: server.worker_pid("fast") not in (None, pid), 30)
            killed = time.monotonic() - began - 3
            server.wait_until(lambda: ask("hi") == 200, 30)
            for _ in range(3):
                ask("<<crash>>")
            open_ = server.wait_until(
                lambda: server.client.get("/health").json()["models"]["fast"] == "broken", 30
            )
            grown = max(0, server.rss() - before)
    return ("F8", "out of memory, hang, crash", "gateway +50 MiB; killed in 5 s; breaker after 3",
            f"+{grown / MIB:.1f} MiB; killed {killed:.1f} s after the deadline; open "
            f"{open_:.1f} s after the third")  # fmt: skip


def f9(base: Path, kills: int, seconds: float) -> Row:
    """A stored file with one bit flipped, then cut; the version before must go on serving."""
    with folder(base) as data:
        cli(data, "deploy", "digits")
        cli(data, "models", "push", "digits", str(DIGITS), "--licence", "MIT")
        (line,) = [one for one in cli(data, "models", "show", "digits").splitlines()
                   if one.startswith("artifact")]  # fmt: skip
        folder_ = data / "artifacts" / line.split()[1].removeprefix("sha256:")
        target = max(folder_.iterdir(), key=lambda one: one.stat().st_size)
        whole = target.read_bytes()
        words, statuses = [], []
        with serving(data) as server, Client(server.url, server.key) as client:
            for damaged in (whole[:-100], _flipped(whole)):
                target.chmod(0o600)
                target.write_bytes(damaged)
                try:
                    client.deployments.promote("digits", 2)
                    words.append("served")
                except ApiError as error:
                    words.append("refused" if "damaged" in str(error) else str(error))
                for _ in range(20):
                    answer = server.client.post("/v2/models/digits/infer", json=ROW)
                    statuses.append((answer.status_code, answer.json().get("model_version")))
                client.deployments.undeploy("digits", 2)
    good = sum(one == (200, "1") for one in statuses)
    return ("F9", "artifacts cut and with a flipped bit", "refused; the old version serves",
            f"{', '.join(words)}; {good} of {len(statuses)} answers by version 1")  # fmt: skip


def _flipped(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


def f10(base: Path, kills: int, seconds: float) -> Row:
    with folder(base) as data:
        deploy_echo(data, "slow", tokens_per_second=20)
        with serving(data) as server:
            children = server.children()

            def ask(_: int) -> bool:
                headers = {"Authorization": f"Bearer {server.key}"}
                body = chat("slow", "a b c", max_tokens=100)
                answer = httpx.post(f"{server.url}/v1/chat/completions", json=body,
                                    headers=headers, timeout=60)  # fmt: skip
                return bool(answer.json()["usage"]["completion_tokens"] == 100)

            with ThreadPoolExecutor(20) as pool:
                jobs = [pool.submit(ask, n) for n in range(20)]
                time.sleep(1.5)
                began = time.monotonic()
                os.kill(server.process.pid, signal.SIGTERM)
                whole = sum(job.result() for job in jobs)
                finished = time.monotonic() - began
            code = server.process.wait(60)
            until = time.monotonic() + 10
            while any(map(alive, children)) and time.monotonic() < until:
                time.sleep(0.02)
            gone = time.monotonic() - began - finished
    return ("F10", "SIGTERM with 20 calls in flight", "they finish in 30 s; children gone in 10 s",
            f"{whole} of 20 whole in {finished:.1f} s; gone {gone:.1f} s later, exit {code}",
    )  # fmt: skip


ALL: dict[str, Callable[[Path, int, float], Row]] = {
    "L1": l1, "L2": l2, "L3": l3, "F1": f1, "F2": f2, "F6": f6, "F7": f7, "F8": f8, "F9": f9,
    "F10": f10,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(ALL), help="ids, comma-separated")
    parser.add_argument("--kills", type=int, default=20, help="of F1 and F2")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    asked = parser.parse_args()
    print(machine())
    rows = []
    with tempfile.TemporaryDirectory(prefix="openmaas-promises-") as scratch:
        base = Path(scratch) / "base"
        base.mkdir()
        cli(base, "models", "pull", "digits")
        for name in asked.only.split(","):
            began = time.monotonic()
            row = ALL[name](base, asked.kills, asked.seconds)
            rows.append(row)
            print(f"{' | '.join(row)} ({number(time.monotonic() - began)} s)", flush=True)
    table("Promises", ["id", "what", "bar", "seen"], [list(row) for row in rows])


if __name__ == "__main__":
    main()

"""What this machine can run, what is missing, and the command that mends it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from openmaas.config import Settings
from openmaas.encryption.master import exposed, master_file, open_master
from openmaas.encryption.memory import in_memory, open_memory, swaps
from openmaas.errors import ConfigurationError
from openmaas.serving.residency import group_limit

State = Literal["ok", "lacking", "missing"]

MEMORY_BYTES = 2 * 1024**3  # the starter models and their server, with room
DISK_BYTES = 2 * 1024**3

ENGINES = {
    "openvino_genai": "language models",
    "xllamacpp": "GGUF language models of other architectures",
    "openvino": "ordinary networks and embeddings",
}
EXTRAS = {  # of a package: what for, and the extra that has it
    "keras": ("training and Keras files", "train"),
    "jax": ("training", "train"),
    "torch": ("conversion of Keras files and of language models from safetensors", "convert"),
}
_LANDLOCK = "a kernel with Landlock, switched on (lsm=landlock,…): 6.12 or newer has all of it"
SANDBOX_MENDS = {
    "rlimits": "Linux",
    "no-new-privileges": "Linux",
    "capabilities": "Linux",
    "landlock-writes": _LANDLOCK,
    "landlock-reads": _LANDLOCK,
    "landlock-tcp": _LANDLOCK,
    "landlock-scope": _LANDLOCK,
    "network-namespace": "user namespaces (sysctl kernel.unprivileged_userns_clone=1 and "
    "kernel.apparmor_restrict_unprivileged_userns=0; in a container a profile that lets it have "
    "them); without them seccomp alone keeps sockets away",
    "seccomp": "a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or arm64",
}


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor's answer."""

    subject: str
    state: State  # missing: nothing can be served without it; lacking: something cannot
    what: str
    mend: str = ""  # the command or advice that mends it


def examine(settings: Settings) -> list[Finding]:
    """Looks at everything; the data folder need not exist yet."""
    data = settings.data_path
    looks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _processor,
        _memory,
        lambda: _disk(data),
        lambda: _master_key(settings),
        lambda: _unsealed(settings),
        _engines,
        _devices,
        _extras,
        _sandbox,
        lambda: _hidden(data),
        _pip,
    ]
    return [finding for look in looks for finding in look()]


def _python() -> Iterator[Finding]:
    said = f"{platform.python_version()} on Linux {platform.release()}, {platform.machine()}"
    if sys.platform != "linux":
        yield Finding("system", "missing", platform.platform(), "workers need Linux")
    else:
        yield Finding("Python", "ok", said)


def _processor() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    name, flags = "unknown", set[str]()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
    have = [flag for flag in wanted if flag in flags]
    what = f"{cores} cores, {name}; {' '.join(have) or 'no AVX2'}"
    if platform.machine() == "x86_64" and "avx2" not in flags:
        yield Finding("processor", "lacking", what, "models will answer slowly without AVX2")
    else:
        yield Finding("processor", "ok", what)


def _memory() -> Iterator[Finding]:
    fields = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if line
    )
    total, free = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = group_limit()
    free = free if limit is None else min(free, limit)
    what = f"{free / 1e9:.1f} GB available of {total / 1e9:.1f}"
    if limit is not None and limit < total:
        what += f", {limit / 1e9:.1f} allowed to this group of processes"
    if free < MEMORY_BYTES:
        yield Finding("memory", "lacking", what, "the starter models want 2 GB; stop something")
    else:
        yield Finding("memory", "ok", what)


def _disk(data: Path) -> Iterator[Finding]:
    folder = data
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    what = f"{data}, {free / 1e9:.1f} GB free"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        yield Finding(
            "data folder", "missing", f"{data} cannot be written", "--data-dir or OPENMAAS_DATA_DIR"
        )
        return
    if free < DISK_BYTES:
        yield Finding("data folder", "lacking", what, "models need room: another --data-dir")
    else:
        yield Finding("data folder", "ok", what)


def _master_key(settings: Settings) -> Iterator[Finding]:
    try:
        where = open_master(settings).where
    except ConfigurationError as error:
        yield Finding("master key", "missing", error.message, "docs/privacy.md#encryption")
        return
    if settings.master_key is not None or settings.master_key_command is not None:
        yield Finding("master key", "ok", f"with {where}")
        return
    path = master_file(settings)
    there = "" if path.exists() else ", made when it is first needed"
    if exposed(path):
        yield Finding("master key", "lacking", f"{path} can be read by others", f"chmod 600 {path}")
    elif path.is_relative_to(settings.data_path):
        yield Finding(
            "master key",
            "lacking",
            f"in {path}{there}: beside what it protects, so that a copy of the data folder is "
            "readable",
            "master_key_file on another disk, OPENMAAS_MASTER_KEY or master_key_command",
        )
    else:
        yield Finding("master key", "ok", f"in {path}{there}")


def _unsealed(settings: Settings) -> Iterator[Finding]:
    folder = open_memory(settings).folder
    what = f"what is sealed lies unsealed in {folder} while it is worked with"
    if not in_memory(folder):
        yield Finding(
            "memory folder", "lacking", f"{what}, on a disk", "memory_dir on a tmpfs: /dev/shm"
        )
        return
    place = folder
    while not place.exists():
        place = place.parent
    what += f", a tmpfs with {shutil.disk_usage(place).free / 1e9:.1f} GB free"
    if swaps():
        mend = "swapoff -a, or swap that is encrypted"
        yield Finding("memory folder", "lacking", f"{what}; this machine may swap it out", mend)
    else:
        yield Finding("memory folder", "ok", what)


def _engines() -> Iterator[Finding]:
    for module, use in ENGINES.items():
        found, error = _try_import(module)
        if error:
            mend = "make serve (or pip install -e .)"
            yield Finding(module, "missing", f"for {use}: {error}", mend)
        else:
            yield Finding(module, "ok", f"{found}, for {use}")


def _devices() -> Iterator[Finding]:
    script = (
        "import json, openvino as ov; core = ov.Core(); "
        "print(json.dumps({d: core.get_property(d, 'FULL_DEVICE_NAME') "
        "for d in core.available_devices}))"
    )
    said, error = _child(script)
    if error:
        yield Finding("OpenVINO devices", "missing", error, "make serve (or pip install -e .)")
        return
    found = json.loads(said)
    what = "; ".join(f"{device}: {name}" for device, name in found.items())
    if "CPU" in found:
        yield Finding("OpenVINO devices", "ok", what)
    else:
        yield Finding("OpenVINO devices", "missing", what or "none", "a CPU that OpenVINO knows")


def _extras() -> Iterator[Finding]:
    for module, (use, extra) in EXTRAS.items():
        try:
            found = version(module)  # importing them takes seconds, and Keras wants a backend
        except PackageNotFoundError:
            mend = f"make install (or pip install -e '.[{extra}]')"
            yield Finding(module, "lacking", f"not here; for {use}", mend)
        else:
            yield Finding(module, "ok", f"{found}, for {use}")


def _sandbox() -> Iterator[Finding]:
    from openmaas.placement import sandbox

    have = sandbox.available()
    missing = [layer for layer in sandbox.LAYERS if layer not in have]
    what = (
        "workers, conversion, training, templates and what explains models run under "
        f"{', '.join(have) or 'no confinement'}"
    )
    if not missing:
        yield Finding("sandbox", "ok", what)
    else:
        mends = dict.fromkeys(SANDBOX_MENDS[layer] for layer in missing)
        needed = sandbox.lacking(have)
        what += f"; this machine has no {', '.join(missing)}"
        if needed:
            what += f", and refuses sandbox=required for want of {', '.join(needed)}"
        yield Finding("sandbox", "lacking", what, "; ".join(mends))
    yield Finding("core dumps", "ok", "the server and its children write none, however they end")


def _hidden(data: Path) -> Iterator[Finding]:
    """Whether confined processes, which read programs and libraries, could read the data too."""
    from openmaas.placement import sandbox

    readable = set(sandbox.system_reads()) - {Path.cwd()}  # they run in folders of their own
    around = sorted(one for one in readable if data.is_relative_to(one))
    if around:
        what = f"{data} is within {around[0]}, which confined processes may read"
        yield Finding("data folder's place", "lacking", what, "another --data-dir")


def _pip() -> Iterator[Finding]:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        mend = f"{sys.executable} -m ensurepip"
        yield Finding("pip", "lacking", "not here; pypi: models need it", mend)
    else:
        yield Finding("pip", "ok", f"{done.stdout.split()[1]}, fetches pypi: models")


def _try_import(module: str) -> tuple[str, str]:
    """Version and error of a module, imported in a child: an engine may well crash at it."""
    script = (
        f"import {module}; from importlib.metadata import packages_distributions, version; "
        f"print(version(packages_distributions()['{module}'][0]))"
    )
    return _child(script)


def _child(script: str) -> tuple[str, str]:
    """Last line of a Python child's output, and of its errors if it failed."""
    done = subprocess.run(
        [sys.executable, "-c", f"import openmaas.runtimes; {script}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode < 0:
        return "", f"crashed with signal {-done.returncode}"
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    last = lines[-1] if lines else ""
    return ("", last or f"exit code {done.returncode}") if done.returncode else (last, "")

"""Takes rights away from the process that it runs in: for code that reads hostile files.

As a program, ``python -m openmaas.placement.sandbox --write DIR … --module NAME -- ARGS``
confines itself and then runs module ``NAME``, so that not one line of it runs free.

Sources: Linux's ``Documentation/userspace-api/landlock.rst``, ``unshare(2)``, ``prctl(2)``,
``capabilities(7)``. Every layer is optional, as kernels differ; ``enforced()`` says which are in
force and ``available()`` which this machine has. With ``OPENMAAS_SANDBOX=required`` a module that
could not be confined is not run.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import runpy
import signal
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from openmaas.placement import landlock, seccomp

NO_NEW_PRIVILEGES = "no-new-privileges"
LIMITS = "rlimits"
WRITES = "landlock-writes"  # writes only in the folders given
READS = "landlock-reads"  # reads only what was given
TCP = "landlock-tcp"  # neither connects nor listens
SCOPE = "landlock-scope"  # no signals to, no abstract sockets of, processes outside
NETWORK = "network-namespace"  # no interface but its own loopback, which is down
CAPABILITIES = "capabilities"  # none of root's powers but to read and write what root may
SECCOMP = "seccomp"  # system calls that nothing of it needs, sockets among them

LAYERS = (
    *(LIMITS, NETWORK, CAPABILITIES, NO_NEW_PRIVILEGES),
    *(WRITES, READS, TCP, SCOPE, SECCOMP),
)
NEEDED = (LIMITS, CAPABILITIES, NO_NEW_PRIVILEGES, WRITES, READS, SECCOMP)
"""Without these a process might read or write what is not its own, or be heard outside."""

ENFORCED_VARIABLE = "OPENMAAS_ENFORCED"  # tells the module that was run, comma-separated
POLICY_VARIABLE = "OPENMAAS_SANDBOX"  # "required": what cannot be confined is not run
REQUIRED = "required"
UNCONFINED = 70  # exit status of what was not run

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION = 0x20080522  # of 64 bits, in two halves
_KEPT = 1 << 1  # CAP_DAC_OVERRIDE: a data folder may be another user's than root's
_NEWUSER, _NEWNET = 0x10000000, 0x40000000

_SYSTEM_READS = (
    *("/usr", "/bin", "/lib", "/lib32", "/lib64", "/sys", "/proc"),
    *("/opt/intel", "/opt/rocm", "/opt/nvidia"),  # what drivers of accelerators bring
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"),
    *("/etc/nsswitch.conf", "/etc/passwd", "/etc/os-release", "/etc/mime.types"),
    *("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"),
)

_DEVICES = ("nvidia*", "nvidia-caps/*", "dri/*", "kfd", "accel/*")  # under /dev

# What was confined before it came to this module stays so, and cannot take the same away again.
_in_force = [name for name in os.environ.get(ENFORCED_VARIABLE, "").split(",") if name in LAYERS]
_libc = ctypes.CDLL(None, use_errno=True)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds that the kernel keeps; ``None`` leaves one as it is."""

    address_space: int | None = None  # bytes
    cpu_seconds: int | None = None
    file_bytes: int | None = None
    open_files: int | None = 1024


def confine(
    *,
    write: Sequence[Path],
    read: Sequence[Path] | None = None,
    network: bool = False,
    unix: bool = False,
    devices: bool = False,
    limits: Limits | None = None,
) -> list[str]:
    """Takes the rights away for good; call it before any thread starts.

    Args:
        write: folders in which alone files may be made, changed and removed.
        read: what may be read besides Python's and the system's own libraries; ``None``: all.
        network: leave the network as it is.
        unix: sockets with a path in the file system may be made.
        devices: accelerators may be used, where there are any.
        limits: see ``Limits``; core dumps are always off.

    Returns:
        The layers now in force, of the names at the top of this module.
    """
    _set_limits(limits or Limits())
    if not network and _leave_network():
        _note(NETWORK)
    keep_no_core()
    if _drop_capabilities():
        _note(CAPABILITIES)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        _note(NO_NEW_PRIVILEGES)
        used = _devices() if devices else []
        _restrict_files(write, read, used, network=network, unix=unix)
        if seccomp.install(network=network, unix=unix):
            _note(SECCOMP)
    return enforced()


def keep_no_core() -> None:
    """No core file of this process is ever written, and none of its user's may look into it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def lacking(layers: Iterable[str]) -> list[str]:
    """Those that ``OPENMAAS_SANDBOX=required`` demands and that are not among the given ones."""
    have = set(layers)
    return [name for name in NEEDED if name not in have]


def enforced() -> list[str]:
    """The layers in force in this process, in the order in which they came."""
    return list(_in_force)


def available() -> list[str]:
    """The layers that this machine can enforce, found by trying them in a short-lived child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            found = confine(write=[], read=[], limits=Limits())
            os.write(writing, ",".join(found).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return [name for name in text.split(",") if name]


def _note(layer: str) -> None:
    if layer not in _in_force:
        _in_force.append(layer)


def _set_limits(limits: Limits) -> None:
    wanted = (
        (resource.RLIMIT_AS, limits.address_space),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
    )
    for which, value in wanted:
        if value is not None:
            hard = resource.getrlimit(which)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (value, value))
    _note(LIMITS)


def _leave_network() -> bool:
    if _libc.unshare(_NEWNET) == 0:
        return True
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_NEWUSER | _NEWNET) != 0:
        return False
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        try:
            Path("/proc/self", name).write_text(text)
        except OSError:  # unmapped, the process is "nobody", which takes rights away, not gives
            break
    return True


def _drop_capabilities() -> bool:
    head = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; then upper halves
    if _libc.capget(head, held) != 0:
        return False
    permitted = struct.unpack("=6I", held.raw)[1] & _KEPT
    return bool(_libc.capset(head, struct.pack("=6I", permitted, permitted, 0, 0, 0, 0)) == 0)


def _restrict_files(
    write: Sequence[Path],
    read: Sequence[Path] | None,
    used: Sequence[Path],
    *,
    network: bool,
    unix: bool,
) -> None:
    done = landlock.restrict(
        write,
        None if read is None else [*read, *system_reads()],
        change=[Path("/dev/null"), *used],
        network=network,
        sockets=unix,
    )
    layers = (WRITES, done.writes), (READS, done.reads), (TCP, done.tcp), (SCOPE, done.scope)
    for layer, on in layers:
        if on:
            _note(layer)


def _devices() -> list[Path]:
    return [path for form in _DEVICES for path in Path("/dev").glob(form)]


def system_reads() -> list[Path]:
    """What every confined process may read: Python's and the system's own."""
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path}
    return [Path(name) for name in (*_SYSTEM_READS, *sorted(python)) if name]


def main() -> None:
    parser = argparse.ArgumentParser(prog="openmaas.placement.sandbox")
    parser.add_argument("--write", type=Path, action="append", default=[])
    parser.add_argument("--read", type=Path, action="append", default=[])
    parser.add_argument("--limits", default="{}", help="Limits, as JSON")
    parser.add_argument("--unix", action="store_true")
    parser.add_argument("--devices", action="store_true")
    parser.add_argument("--module", required=True)
    parser.add_argument("arguments", nargs="*")
    asked = parser.parse_args()
    _forget_working_folder()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # it never outlives whoever watches it
    layers = confine(
        write=asked.write,
        read=asked.read,
        unix=asked.unix,
        devices=asked.devices,
        limits=msgspec.json.decode(asked.limits, type=Limits),
    )
    if os.environ.get(POLICY_VARIABLE) == REQUIRED and lacking(layers):
        print(f"not confined by {', '.join(lacking(layers))}: not run", file=sys.stderr)
        sys.exit(UNCONFINED)
    os.environ[ENFORCED_VARIABLE] = ",".join(layers)
    sys.argv = [asked.module, *asked.arguments]
    runpy.run_module(asked.module, run_name="__main__", alter_sys=True)


def _forget_working_folder() -> None:
    """``python -m`` looks for modules where it was started, and what is looked through is readable:
    that may be anybody's folder, the data folder's too."""
    here = os.getcwd()
    if sys.path[:1] == [here] and not Path(__file__).is_relative_to(here):
        del sys.path[0]


if __name__ == "__main__":
    # As __main__ this file is a second copy; the state must be in the one that others import.
    from openmaas.placement import sandbox

    sandbox.main()

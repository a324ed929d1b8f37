"""Takes rights away from the process that it runs in: for code that reads hostile files.

As a program, ``python -m openmaas.placement.sandbox --write DIR … --module NAME -- ARGS``
confines itself and then runs module ``NAME``, so that not one line of it runs free.

Sources: Linux's ``Documentation/userspace-api/landlock.rst``, ``unshare(2)``, ``prctl(2)``.
Every layer is optional, as kernels differ; ``enforced()`` says which are in force and
``available()`` which this machine has.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import runpy
import signal
import stat
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

NO_NEW_PRIVILEGES = "no-new-privileges"
LIMITS = "rlimits"
WRITES = "landlock-writes"  # writes only in the folders given
READS = "landlock-reads"  # reads only what was given
TCP = "landlock-tcp"  # neither connects nor listens
SCOPE = "landlock-scope"  # no signals to, no abstract sockets of, processes outside
NETWORK = "network-namespace"  # no interface but its own loopback, which is down

ENFORCED_VARIABLE = "OPENMAAS_ENFORCED"  # tells the module that was run, comma-separated

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_O_PATH = getattr(os, "O_PATH", 0o10000000)

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_WRITE_RIGHTS = 0x1FF2  # WRITE_FILE, REMOVE_*, MAKE_* of ABI 1
_READ_RIGHTS = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
# Within its folders: plain files and folders. Links, devices, sockets and pipes are not for it.
_GRANTED = (
    _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
) | _READ_RIGHTS

_SYSTEM_READS = (
    *("/usr", "/bin", "/lib", "/lib32", "/lib64", "/sys", "/proc", "/opt"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"),
    *("/etc/nsswitch.conf", "/etc/passwd", "/etc/os-release", "/etc/mime.types"),
    *("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"),
)

_in_force: list[str] = []
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
    limits: Limits | None = None,
) -> list[str]:
    """Takes the rights away for good; call it before any thread starts.

    Args:
        write: folders in which alone files may be made, changed and removed.
        read: what may be read besides Python's and the system's own libraries; ``None``: all.
        network: leave the network as it is.
        limits: see ``Limits``; core dumps are always off.

    Returns:
        The layers now in force, of the names at the top of this module.
    """
    _set_limits(limits or Limits())
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if not network and _leave_network():
        _note(NETWORK)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        _note(NO_NEW_PRIVILEGES)
        _landlock(write, read, network)
    return enforced()


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


def landlock_abi() -> int:
    """Version of the kernel's Landlock; 0 where there is none."""
    return int(max(0, _libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def _note(layer: str) -> None:
    if layer not in _in_force:
        _in_force.append(layer)


def _set_limits(limits: Limits) -> None:
    wanted = (
        (resource.RLIMIT_CORE, 0),
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


def _landlock(write: Sequence[Path], read: Sequence[Path] | None, network: bool) -> None:
    abi = landlock_abi()
    if abi < 1:
        return
    writes = _WRITE_RIGHTS | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    handled = writes | (0 if read is None else _READ_RIGHTS)
    tcp = 3 if abi >= 4 and not network else 0  # bind, connect
    scope = 3 if abi >= 6 else 0  # abstract Unix sockets, signals
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = struct.pack("=QQQ", handled, tcp, scope)[:size]
    ruleset = _libc.syscall(_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return
    try:
        for folder in write:
            _allow(ruleset, folder, _GRANTED & handled)
        _allow(ruleset, Path("/dev/null"), (_WRITE_FILE | _READ_FILE) & handled)
        for path in _readable(read):
            _allow(ruleset, path, _READ_RIGHTS & handled)
        if _libc.syscall(_RESTRICT, ruleset, ctypes.c_uint32(0)) != 0:
            return
    finally:
        os.close(ruleset)
    _note(WRITES)
    for layer, on in ((READS, read is not None), (TCP, tcp), (SCOPE, scope)):
        if on:
            _note(layer)


def _readable(read: Sequence[Path] | None) -> Iterable[Path]:
    if read is None:
        return []
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path}
    return [*read, *(Path(name) for name in (*_SYSTEM_READS, *sorted(python)) if name)]


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, _O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there need not be allowed
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, opened)
        _libc.syscall(_ADD_RULE, ruleset, 1, rule, ctypes.c_uint32(0))
    finally:
        os.close(opened)


def main() -> None:
    parser = argparse.ArgumentParser(prog="openmaas.placement.sandbox")
    parser.add_argument("--write", type=Path, action="append", default=[])
    parser.add_argument("--read", type=Path, action="append", default=[])
    parser.add_argument("--limits", default="{}", help="Limits, as JSON")
    parser.add_argument("--module", required=True)
    parser.add_argument("arguments", nargs="*")
    asked = parser.parse_args()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # it never outlives whoever watches it
    layers = confine(
        write=asked.write,
        read=asked.read,
        limits=msgspec.json.decode(asked.limits, type=Limits),
    )
    os.environ[ENFORCED_VARIABLE] = ",".join(layers)
    sys.argv = [asked.module, *asked.arguments]
    runpy.run_module(asked.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    # As __main__ this file is a second copy; the state must be in the one that others import.
    from openmaas.placement import sandbox

    sandbox.main()

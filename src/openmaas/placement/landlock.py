"""Landlock: which files a process may read and write, from now on and for good.

Source: Linux's ``Documentation/userspace-api/landlock.rst``. What a kernel's version of it does not
know yet is not restricted; ``Done`` says what is.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_O_PATH = getattr(os, "O_PATH", 0o10000000)

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_MAKE_SOCKET, _REFER, _TRUNCATE = 1 << 9, 1 << 13, 1 << 14
_WRITE_RIGHTS = 0x1FF2  # WRITE_FILE, REMOVE_*, MAKE_* of ABI 1
_READ_RIGHTS = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
# Within its folders: plain files and folders. Links, devices, sockets and pipes are not for it.
_GRANTED = (
    _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
) | _READ_RIGHTS

_libc = ctypes.CDLL(None, use_errno=True)


class Done(NamedTuple):
    """What is restricted now."""

    writes: bool = False
    reads: bool = False
    tcp: bool = False  # connecting and listening
    scope: bool = False  # signals to, and abstract sockets of, processes outside


def abi() -> int:
    """Version of the kernel's Landlock; 0 where there is none."""
    return int(max(0, _libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def restrict(
    write: Sequence[Path],
    read: Sequence[Path] | None,
    *,
    change: Sequence[Path] = (),
    network: bool = False,
    sockets: bool = False,
) -> Done:
    """
    Args:
        write: folders in which alone files may be made, changed and removed.
        read: what alone may be read; ``None``: everything.
        change: single files, such as devices, that may be written and read.
        network: TCP is left as it is.
        sockets: may be made in the folders of ``write``.
    """
    known = abi()
    if known < 1:
        return Done()
    writes = _WRITE_RIGHTS | (_REFER if known >= 2 else 0) | (_TRUNCATE if known >= 3 else 0)
    handled = writes | (0 if read is None else _READ_RIGHTS)
    tcp = 3 if known >= 4 and not network else 0  # bind, connect
    scope = 3 if known >= 6 else 0  # abstract Unix sockets, signals
    size = 8 if known < 4 else 16 if known < 6 else 24
    attributes = struct.pack("=QQQ", handled, tcp, scope)[:size]
    ruleset = _libc.syscall(_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return Done()
    granted = _GRANTED | (_MAKE_SOCKET if sockets else 0)
    try:
        for folder in write:
            _allow(ruleset, folder, granted & handled)
        for path in change:
            _allow(ruleset, path, (_WRITE_FILE | _READ_FILE) & handled)
        for path in read or ():
            _allow(ruleset, path, _READ_RIGHTS & handled)
        if _libc.syscall(_RESTRICT, ruleset, ctypes.c_uint32(0)) != 0:
            return Done()
    finally:
        os.close(ruleset)
    return Done(writes=True, reads=read is not None, tcp=bool(tcp), scope=bool(scope))


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

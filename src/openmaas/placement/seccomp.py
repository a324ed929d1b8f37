"""System calls that no confined process needs, refused by the kernel: a filter in classic BPF.

A list of what is refused, not of what is allowed: engines and interpreters use several hundred
calls, which differ from release to release. What is refused is what takes hold of other processes
or of the machine, what has opened holes in kernels again and again (``bpf``, ``userfaultfd``,
``io_uring``), and sockets. Calls that are newer than this list are answered as an older kernel
would answer them, so that libraries fall back to what they know.

Sources: ``seccomp(2)``; ``Documentation/userspace-api/seccomp_filter.rst`` and the tables of
system calls of Linux 6.17; Docker's default profile, for ``clone`` and ``clone3``.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_OF_X32 = 0x40000000  # the bit of system calls with pointers of 32 bits
_LATEST = 469  # of the tables: ``file_setattr``; the numbers are the same everywhere from 424 on

_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000  # what a filter says
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # BPF: a 32-bit word, an accumulator, an end
_IF_EQUAL, _IF_LARGER, _IF_SET = 0x15, 0x25, 0x45
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # where in ``struct seccomp_data``

_NAMESPACES = (
    0x7E020000  # flags of clone: of mounts, cgroups, names, IPC, users, processes, network
)
_KINDS_OF_SOCKET = 0xF  # beside which a socket's type has flags
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # which put words into a terminal


class Machine(NamedTuple):
    """An architecture: its number in the kernel's audit, and its system calls."""

    audit: int
    syscall: int  # ``seccomp`` itself
    numbers: dict[str, int]


# name: (x86-64, arm64); None: it has no such call
_CALLS: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # namespaces, mounts, roots
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    # parts of the kernel that have had holes
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    # the machine
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "iopl": (172, None),
    "ioperm": (173, None),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
}
_WATCHED: dict[str, tuple[int, int]] = {  # whose arguments decide
    "clone": (56, 220),
    "clone3": (435, 435),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
}
_ALL: dict[str, tuple[int | None, int | None]] = {**_CALLS, **_WATCHED}


def _machine(audit: int, syscall: int, column: int) -> Machine:
    found = ((name, numbers[column]) for name, numbers in _ALL.items())
    return Machine(audit, syscall, {name: one for name, one in found if one is not None})


MACHINES = {
    "x86_64": _machine(0xC000003E, 317, 0),
    "aarch64": _machine(0xC00000B7, 277, 1),
}
REFUSED = tuple(_CALLS)
"""Calls that are refused whatever their arguments are."""


def install(*, network: bool, unix: bool) -> bool:
    """Puts the filter over this process, all its threads and whatever it starts, for good.

    Args:
        network: sockets of the Internet may be made.
        unix: … and such as have a path in the file system. Pairs of sockets always may.

    Returns:
        Whether it is in force: the kernel or the architecture may not be able to.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        return False
    program = assemble(machine, families(network=network, unix=unix))
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are
    told = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(
        machine.syscall, ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_ALL_THREADS), told
    )
    return int(done) == 0


def families(*, network: bool, unix: bool) -> list[int]:
    """Kinds of addresses that sockets may have."""
    found = [socket.AF_UNIX] if network or unix else []
    if network:
        found += [socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK]
    return [int(family) for family in found]


def assemble(machine: Machine, allowed: Iterable[int]) -> bytes:
    """The filter's instructions.

    Args:
        allowed: families of sockets that may be made; none: sockets come in pairs alone.
    """
    allowed = list(allowed)
    numbers = machine.numbers
    refuse, unknown = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
    code: list[bytes] = [_word(_ARCHITECTURE)]
    code += [_jump(_IF_EQUAL, machine.audit, 1, 0), _end(_KILL)]  # another architecture's calls
    code += [_word(_NUMBER), _jump(_IF_SET, _OF_X32, 0, 1), _end(unknown)]
    code += [_jump(_IF_LARGER, _LATEST, 0, 1), _end(unknown)]
    for name in REFUSED:
        if name in numbers:
            code += [_jump(_IF_EQUAL, numbers[name], 0, 1), _end(refuse)]
    # Its flags are where no filter can read them; without it libraries use ``clone``.
    code += [_jump(_IF_EQUAL, numbers["clone3"], 0, 1), _end(unknown)]
    bodies: dict[str, list[bytes]] = {
        "clone": [_word(_argument(0)), _jump(_IF_SET, _NAMESPACES, 0, 1), _end(refuse)],
        "ioctl": [
            _word(_argument(1)),
            *(_jump(_IF_EQUAL, _TIOCSTI, 1, 0), _jump(_IF_EQUAL, _TIOCLINUX, 0, 1), _end(refuse)),
        ],
        # A datagram's socket of a pair could still be sent elsewhere.
        "socketpair": [
            *(_word(_argument(0)), _jump(_IF_EQUAL, socket.AF_UNIX, 1, 0), _end(refuse)),
            *(_word(_argument(1)), struct.pack("=HBBI", _AND, 0, 0, _KINDS_OF_SOCKET)),
            *(_jump(_IF_EQUAL, socket.SOCK_STREAM, 1, 0), _end(refuse)),
        ],
        "socket": [_word(_argument(0)), *_one_of(allowed), _end(refuse)],
    }
    if not allowed:
        bodies |= {name: [_end(refuse)] for name in ("connect", "bind", "listen")}
    for name, body in bodies.items():
        ended = [*body, _end(_ALLOW)]
        code += [_jump(_IF_EQUAL, numbers[name], 0, len(ended)), *ended]
    code.append(_end(_ALLOW))
    return b"".join(code)


def _one_of(values: list[int]) -> list[bytes]:
    """Ends well for any of the values."""
    return [part for one in values for part in (_jump(_IF_EQUAL, one, 0, 1), _end(_ALLOW))]


def _argument(at: int) -> int:
    """Where the lower half of an argument is; both architectures are little-endian."""
    return _ARGUMENTS + 8 * at


def _word(at: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, at)


def _jump(how: int, value: int, then: int, otherwise: int) -> bytes:
    """``then``, ``otherwise``: instructions that are passed over."""
    return struct.pack("=HBBI", how, then, otherwise, value)


def _end(says: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, says)

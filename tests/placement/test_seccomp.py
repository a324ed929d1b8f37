"""The filter of system calls: as a program, read by a small interpreter, and in the kernel."""

from __future__ import annotations

import errno
import platform
import socket
import struct
import subprocess
import sys

import pytest

from openmaas.placement import sandbox, seccomp
from openmaas.placement.seccomp import MACHINES, REFUSED, Machine, assemble, families

KILLED, ALLOWED = 0x80000000, 0x7FFF0000
EPERM, ENOSYS = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
NEW_USER, THREAD = 0x10000000, 0x003D0F00  # flags of clone: a namespace; what pthreads asks for
HARMLESS = {"x86_64": (0, 1, 9, 59, 231, 302), "aarch64": (63, 64, 222, 221, 94, 261)}


def verdict(
    program: bytes, machine: Machine, number: int, *arguments: int, audit: int | None = None
) -> int:
    """What the kernel would answer: classic BPF, as far as it is used."""
    data = struct.pack("=iIQ6Q", 0, 0, 0, *[*arguments, 0, 0, 0, 0, 0, 0][:6])
    data = struct.pack("=II", number, machine.audit if audit is None else audit) + data[8:]
    at = word = 0
    while True:
        code, then, otherwise, value = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            (word,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            word &= value
        elif code == 0x06:
            return int(value)
        else:
            holds = {0x15: word == value, 0x25: word > value, 0x45: bool(word & value)}[code]
            at += then if holds else otherwise


@pytest.fixture(params=list(MACHINES))
def machine(request: pytest.FixtureRequest) -> Machine:
    return MACHINES[request.param]


def test_what_nothing_needs_is_refused(machine: Machine) -> None:
    for allowed in ([], families(network=True, unix=True)):
        program = assemble(machine, allowed)
        for name in REFUSED:
            if name in machine.numbers:
                assert verdict(program, machine, machine.numbers[name]) == EPERM, name


def test_what_is_needed_is_allowed() -> None:
    for name, numbers in HARMLESS.items():
        program = assemble(MACHINES[name], [])
        assert {verdict(program, MACHINES[name], one) for one in numbers} == {ALLOWED}


def test_calls_of_another_architecture_end_the_process(machine: Machine) -> None:
    program = assemble(machine, [])
    others = [one.audit for one in MACHINES.values() if one is not machine]
    for audit in (0x40000003, 0x40000028, 0, *others):  # of 32 bits, and none at all
        assert verdict(program, machine, 1, audit=audit) == KILLED


def test_x32_and_what_is_newer_than_the_list_are_not_there(machine: Machine) -> None:
    program = assemble(machine, [])
    for number in (0x40000000, 0x40000000 | 41, 0x7FFFFFFF, 470, 1000):
        assert verdict(program, machine, number) == ENOSYS


def test_sockets_are_of_the_families_given(machine: Machine) -> None:
    pairs = machine.numbers["socketpair"]
    made = machine.numbers["socket"]
    every = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, 17, 40, 0)
    for network, unix, allowed in (
        (False, False, set()),
        (False, True, {socket.AF_UNIX}),
        (True, False, set(every[:4])),
    ):
        program = assemble(machine, families(network=network, unix=unix))
        found = {one for one in every if verdict(program, machine, made, one) == ALLOWED}
        assert found == allowed
        stream = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
        assert verdict(program, machine, pairs, socket.AF_UNIX, stream) == ALLOWED
        assert verdict(program, machine, pairs, socket.AF_UNIX, socket.SOCK_DGRAM) == EPERM
        assert verdict(program, machine, pairs, socket.AF_INET, stream) == EPERM
        for name in ("connect", "bind", "listen"):
            said = verdict(program, machine, machine.numbers[name])
            assert said == (ALLOWED if allowed else EPERM), name


def test_arguments_decide(machine: Machine) -> None:
    program, numbers = assemble(machine, []), machine.numbers
    assert verdict(program, machine, numbers["clone"], THREAD) == ALLOWED
    assert verdict(program, machine, numbers["clone"], NEW_USER | 17) == EPERM
    assert verdict(program, machine, numbers["clone3"]) == ENOSYS
    assert verdict(program, machine, numbers["ioctl"], 0, 0x5401) == ALLOWED
    for request in (0x5412, 0x541C, 0xFFFFFFFF00005412):  # the kernel reads the lower half
        assert verdict(program, machine, numbers["ioctl"], 0, request) == EPERM


PROBE = """
import ctypes, errno, socket, subprocess, sys, threading
from openmaas.placement import seccomp

libc = ctypes.CDLL(None, use_errno=True)
ready, go, seen = threading.Event(), threading.Event(), []

def call(number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(number, *arguments)
    return errno.errorcode.get(ctypes.get_errno(), "ok")

numbers = seccomp.MACHINES[sys.argv[1]].numbers

def beside():
    ready.set()
    go.wait()
    seen.append(call(numbers["unshare"], 0))

thread = threading.Thread(target=beside)
thread.start()
ready.wait()
print("before", call(numbers["unshare"], 0))
assert seccomp.install(network=False, unix=False)
go.set()
thread.join()
print("beside", *seen)
for name in seccomp.REFUSED:
    if name in numbers:
        print(name, call(numbers[name], 0, 0, 0, 0, 0))
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_NETLINK):
    try:
        socket.socket(family).close()
        print("made", family.name)
    except PermissionError:
        print(family.name, "EPERM")
a, b = socket.socketpair()
a.send(b"x")
print("pair", b.recv(1).decode())
inner = "import ctypes; l = ctypes.CDLL(None, use_errno=True); l.unshare(0)"
inner += "; print(ctypes.get_errno())"
print("child", subprocess.run([sys.executable, "-c", inner], capture_output=True, text=True).stdout)
"""


@pytest.mark.skipif(
    sandbox.SECCOMP not in sandbox.available(), reason="this kernel filters no system calls"
)
def test_the_kernel_keeps_to_it_in_all_threads_and_children() -> None:
    libc = "import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)\n"  # no new privileges
    done = subprocess.run(
        [sys.executable, "-c", libc + PROBE, platform.machine()],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line)
    assert found.pop("before") == "ok"
    assert found.pop("pair") == "x"
    assert found.pop("child") == str(errno.EPERM)
    assert set(found.values()) == {"EPERM"}, found
    assert {"beside", "ptrace", "AF_INET", "AF_UNIX"} <= set(found)


def test_a_kernel_of_another_architecture_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openmaas.placement.seccomp.platform.machine", lambda: "riscv64")
    assert not seccomp.install(network=False, unix=False)

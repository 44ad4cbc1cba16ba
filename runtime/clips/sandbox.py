"""Linux's own means to take from a process what decoding does not need. They work without privileges.

seccomp (a filter of system calls) and Landlock (no file, no address) are set up through the C library; what the kernel
lacks is left out, and the caller is told what is in force.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterable
from typing import Final, Literal

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
# linux/audit.h, and each architecture's table of system calls.
_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CALLS: Final = {
    "x86_64": (
        "read=0 write=1 close=3 fstat=5 poll=7 lseek=8 mmap=9 mprotect=10 munmap=11 brk=12 rt_sigaction=13 "
        "rt_sigprocmask=14 rt_sigreturn=15 pread64=17 readv=19 writev=20 select=23 sched_yield=24 mremap=25 "
        "madvise=28 dup=32 nanosleep=35 getpid=39 sendto=44 recvfrom=45 sendmsg=46 recvmsg=47 exit=60 uname=63 "
        "fcntl=72 ftruncate=77 getrusage=98 times=100 sigaltstack=131 gettid=186 time=201 futex=202 "
        "sched_getaffinity=204 clock_gettime=228 clock_getres=229 clock_nanosleep=230 exit_group=231 "
        "newfstatat=262 ppoll=271 pselect6=270 set_robust_list=273 getrandom=318 rseq=334 clone=56 clone3=435 "
        "openat=257 socket=41 connect=42 shutdown=48 bind=49 getsockname=51 getpeername=52 setsockopt=54 "
        "getsockopt=55 ioctl=16 sendmmsg=307 recvmmsg=299 access=21 getuid=102 geteuid=107 getgid=104 getegid=108 "
        "stat=4 statx=332 readlink=89 eventfd2=290 pipe2=293 epoll_create1=291 epoll_ctl=233 epoll_wait=232 "
        "open=2 prctl=157 prlimit64=302 landlock_create_ruleset=444 "
        "landlock_restrict_self=446 "
    ),
    "aarch64": (
        "read=63 write=64 close=57 fstat=80 lseek=62 mmap=222 mprotect=226 munmap=215 brk=214 rt_sigaction=134 "
        "rt_sigprocmask=135 rt_sigreturn=139 pread64=67 readv=65 writev=66 sched_yield=124 mremap=216 madvise=233 "
        "dup=23 nanosleep=101 getpid=172 sendto=206 recvfrom=207 sendmsg=211 recvmsg=212 exit=93 uname=160 "
        "fcntl=25 ftruncate=46 getrusage=165 times=153 sigaltstack=132 gettid=178 futex=98 sched_getaffinity=123 "
        "clock_gettime=113 clock_getres=114 clock_nanosleep=115 exit_group=94 newfstatat=79 ppoll=73 pselect6=72 "
        "set_robust_list=99 getrandom=278 rseq=293 clone=220 clone3=435 openat=56 socket=198 connect=203 "
        "shutdown=210 bind=200 getsockname=204 getpeername=205 setsockopt=208 getsockopt=209 ioctl=29 "
        "sendmmsg=269 recvmmsg=243 getuid=174 geteuid=175 getgid=176 getegid=177 statx=291 readlinkat=78 "
        "eventfd2=19 pipe2=59 epoll_create1=20 epoll_ctl=21 epoll_pwait=22 prctl=167 prlimit64=261 "
        "landlock_create_ruleset=444 landlock_restrict_self=446 "
    ),
}
# What decoding from open descriptors takes: memory, reading, answering, and the time.
_DECODING: Final = (
    *("read", "write", "close", "fstat", "poll", "ppoll", "select", "pselect6", "lseek", "mmap", "mprotect", "munmap"),
    *("brk", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "pread64", "readv", "writev", "sched_yield", "mremap"),
    *("madvise", "dup", "nanosleep", "getpid", "sendto", "recvfrom", "sendmsg", "recvmsg", "exit", "uname", "fcntl"),
    *("getrusage", "times", "sigaltstack", "gettid", "time", "futex", "sched_getaffinity", "clock_gettime"),
    *("clock_getres", "clock_nanosleep", "exit_group", "newfstatat", "set_robust_list", "getrandom", "rseq"),
)
# What finding and asking a server takes besides: files to read (certificates, names of hosts), sockets, threads; and
# what confining it further afterwards takes.
_CONNECTING: Final = (
    *("socket", "connect", "shutdown", "bind", "getsockname", "getpeername", "setsockopt", "getsockopt", "sendmmsg"),
    *("recvmmsg", "access", "getuid", "geteuid", "getgid", "getegid", "stat", "statx", "readlink", "readlinkat"),
    *("eventfd2", "pipe2", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "ioctl"),
    *("prctl", "prlimit64", "landlock_create_ruleset", "landlock_restrict_self"),
)
_PROT_EXEC: Final = 4
_CLONE_THREAD: Final = 0x10000
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# linux/filter.h and linux/seccomp.h
_LOAD, _EQUALS, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LANDLOCK: Final = (444, 446)  # create_ruleset and restrict_self, on every architecture

Means = Literal["limits", "seccomp", "landlock"]


def confine(*, network: bool = False) -> list[Means]:
    """From here on this process opens nothing, starts nothing and, unless `network`, reaches nobody.

    With `network` it may open files for reading, and connect. What it holds open already stays open.

    Returns:
        What is in force: "limits" (writes no file, leaves no core, holds few descriptors), "seccomp", "landlock".
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    found: list[Means] = ["limits"]
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return found
    if not network and _landlock():
        found.append("landlock")
    if _seccomp((*_DECODING, *_CONNECTING) if network else _DECODING, network):
        found.append("seccomp")
    return found


def _landlock() -> bool:
    create, restrict = _LANDLOCK
    version = _LIBC.syscall(create, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    # Every right of this version and not one rule: nothing is allowed. (linux/landlock.h)
    files = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    rules = struct.pack("=QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    descriptor = _LIBC.syscall(create, ctypes.c_char_p(rules), ctypes.c_size_t(size), 0)
    if descriptor < 0:
        return False
    refused = _LIBC.syscall(restrict, descriptor, 0)
    os.close(descriptor)
    return not refused


def _seccomp(allowed: Iterable[str], network: bool) -> bool:
    machine = platform.machine()
    if machine not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    program = _program(machine, allowed, network)
    code = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    return not _LIBC.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.c_char_p(header), 0, 0)


def _program(machine: str, allowed: Iterable[str], network: bool) -> list[bytes]:
    """A filter in classic BPF: what is not allowed fails with EPERM."""
    calls = {name: int(number) for name, _, number in (word.partition("=") for word in _CALLS[machine].split())}
    # struct seccomp_data: the call's number at 0, the architecture at 4, the low half of argument n at 16 + 8 n.
    out = [_step(_LOAD, 4), _step(_EQUALS, _ARCHITECTURES[machine], 1, 0), _step(_RETURN, _KILL), _step(_LOAD, 0)]

    def unless(name: str, argument: int, bits: int, wanted: bool) -> None:
        """Allows a call if one of the bits of its argument is set, or not, as wanted."""
        if name in calls:
            out.extend(
                (
                    _step(_EQUALS, calls[name], 0, 4),
                    _step(_LOAD, 16 + 8 * argument),
                    _step(_ANY_BIT, bits, *((1, 0) if not wanted else (0, 1))),
                    _step(_RETURN, _ALLOW),
                    _step(_RETURN, _ERRNO | errno.EPERM),
                )
            )

    # No memory becomes code, so that a bug cannot bring its own.
    unless("mmap", 2, _PROT_EXEC, wanted=False)
    unless("mprotect", 2, _PROT_EXEC, wanted=False)
    if network:
        unless("openat", 2, _WRITING, wanted=False)
        unless("open", 1, _WRITING, wanted=False)
        # Names of hosts are looked up in threads.
        unless("clone", 0, _CLONE_THREAD, wanted=True)
    # Its arguments cannot be seen from here; the C library then falls back on `clone`.
    out += [_step(_EQUALS, calls["clone3"], 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
    for number in (calls[name] for name in allowed if name in calls and name not in ("mmap", "mprotect")):
        out += [_step(_EQUALS, number, 0, 1), _step(_RETURN, _ALLOW)]
    return [*out, _step(_RETURN, _ERRNO | errno.EPERM)]


def _step(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)

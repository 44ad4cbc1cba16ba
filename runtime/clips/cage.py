"""The cage: what strangers sent is decoded in processes of their own, which can do little and lose little.

A child gets a file as an open descriptor and can open nothing else (`sandbox`); its memory, its CPU time and the wall
clock are bounded from outside; the clips come back through shared memory of a fixed size. A decoder that crashes, hangs
or takes too much costs that video, and the next one has a new child. Children are used again, so that a clip costs
little more than in this process.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import math
import mmap
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hardroute.runtime.clips.contract import ClipContract
from hardroute.runtime.clips.file_type import SourceFile
from hardroute.runtime.clips.frames import ClipFrames
from hardroute.runtime.clips.limits import Limits
from hardroute.runtime.clips.sampling import Spread
from hardroute.runtime.errors import ClipError
from hardroute.runtime.files import printable

logger = logging.getLogger(__name__)

CHILD: Final = "hardroute.runtime.clips.cage_child"
# Python and its libraries take a moment, and longer on a machine that is busy.
START_SECONDS: Final = 60.0
# A child keeps the wall clock itself and has the better words; this is for one that hangs.
_GRACE: Final = 2.0
# Bounds what a decoder that leaks, or that a video has turned, can do.
_MOST_VIDEOS: Final = 1000
_MOST_TEXT: Final = 1 << 17
# Nothing else of the environment concerns a decoder, and some of it may be secret.
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class Task:
    """What a child is asked for: the arguments of `scan.Reader`."""

    name: str
    demuxer: str
    contract: ClipContract
    limits: Limits
    spread: Spread
    allow_short: bool

    def to_json(self) -> bytes:
        return json.dumps({**asdict(self), "contract": self.contract.model_dump()}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Task:
        fields = json.loads(text)
        fields["contract"] = ClipContract(**fields["contract"])
        fields["limits"], fields["spread"] = Limits(**fields["limits"]), Spread(**fields["spread"])
        return cls(**fields)


def start(module: str, *descriptors: int, **options: Any) -> subprocess.Popen[bytes]:
    """A child that runs this code's `module` with a bare environment; its arguments are the descriptors that it keeps.

    Raises OSError.
    """
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # The child finds this very code, and nothing that lies in the current folder. Threads and their pools of memory
    # would count against its address space.
    paths = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "MALLOC_ARENA_MAX": "2"}
    environment |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    return subprocess.Popen(  # noqa: S603 -- our own code
        [sys.executable, "-P", "-m", module, *map(str, descriptors)],
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options},
        env=environment,
        pass_fds=descriptors,
    )


def bound_memory(pid: int, limits: Limits) -> None:
    """The child may take `max_memory` bytes from now on."""
    with contextlib.suppress(OSError):  # it has died, which will be heard
        _bound(pid, resource.RLIMIT_AS, _address_space(pid) + limits.max_memory)


def _bound(pid: int, kind: int, most: int) -> None:
    """From outside, since a decoder that a video has turned would not do it."""
    with contextlib.suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(pid, kind, (most, hard))


class Child:
    """A process that decodes one video after the other. Raises ClipError if it cannot be started."""

    def __init__(self, module: str = CHILD) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self.videos = 0
        try:
            with theirs:
                self._process = start(module, theirs.fileno())
        except OSError as error:  # out of processes, files or memory, which may pass
            ours.close()
            raise ClipError(f"a process to decode in cannot be started ({error.strerror}); raise that limit") from None
        self._base = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def decode(self, source: SourceFile, task: Task) -> ClipFrames:
        """Raises ClipError; after one that is the child's fault it is `spent`."""
        self.videos += 1
        if not self._base:
            self._greet(task.name)
        contract = task.contract
        shape = (task.spread.count, contract.frames, contract.height, contract.width, 3)
        with _shared(math.prod(shape)) as (descriptor, memory):
            self._bound(task.limits)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self._socket, [task.to_json()], [source.file.fileno(), descriptor])
            answer = self._receive(task, task.limits.max_decode_seconds + _GRACE)
            if "trace" in answer:
                logger.warning("%s: its decoder failed: %s", printable(task.name), printable(str(answer["trace"])))
            if "error" in answer:
                raise ClipError(str(answer["error"]))
            # A copy: whoever wrote it could write again.
            frames = np.frombuffer(memory, np.uint8).reshape(shape).copy()
        try:
            return ClipFrames(frames, *_checked(answer, task.spread.count))
        except (KeyError, TypeError, ValueError):
            self.close()
            raise ClipError(f"{task.name}: its decoder answered out of turn; the video is not to be trusted") from None

    @property
    def spent(self) -> bool:
        """Whether the next video should have another child."""
        return self._socket.fileno() < 0 or self.videos >= _MOST_VIDEOS or self._process.poll() is not None

    def close(self) -> None:
        """Ends the process."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """After a fork: the process is the parent's."""
        self._socket.close()
        self._process.returncode = 0

    def _greet(self, name: str) -> None:
        ready = self._receive(None, START_SECONDS, name)
        force = ready.get("force", [])
        if not {"seccomp", "landlock"} & set(force):
            _warn_once(
                f"this system has neither seccomp nor Landlock for a process without privileges: videos are decoded "
                f"behind {', '.join(force) or 'nothing'} alone, so a decoder's bug could reach this user's files"
            )
        self._base = _address_space(self.pid)

    def _bound(self, limits: Limits) -> None:
        _bound(self.pid, resource.RLIMIT_AS, self._base + limits.max_memory)
        _bound(self.pid, resource.RLIMIT_CPU, math.ceil(cpu_seconds(self.pid) + limits.max_cpu_seconds + 1))

    def _receive(self, task: Task | None, seconds: float, name: str = "") -> dict[str, Any]:
        name = task.name if task else name
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(min(seconds, 1e6) * 1000):
            self.close()
            if task is None:
                raise ClipError(f"{name}: the process to decode in did not start within {seconds:g} seconds; try again")
            raise ClipError(
                f"{name}: decoding took longer than {task.limits.max_decode_seconds:g} seconds and was ended; "
                "scale the video down or raise max_decode_seconds"
            )
        with contextlib.suppress(ConnectionResetError):
            if text := self._socket.recv(_MOST_TEXT):
                try:
                    answer = json.loads(text)
                    if isinstance(answer, dict):
                        return answer
                except ValueError:
                    pass
                self.close()
                raise ClipError(f"{name}: its decoder answered out of turn; the video is not to be trusted")
        # It has closed its end, so it is about to end; how it does is what is told.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        self.close()
        raise ClipError(f"{name}: {_obituary(self._process.returncode, task)}")


class Cage:
    """Children for as many videos at a time as there are cores; further ones wait.

    >>> with Cage() as cage:  # doctest: +SKIP
    ...     decode("clip.mp4", contract)
    """

    def __init__(self, most: int | None = None, module: str = CHILD) -> None:
        self._most, self._module = most or os.cpu_count() or 1, module
        self._turn = threading.Condition()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._starting = 0

    def decode(self, source: SourceFile, task: Task) -> ClipFrames:
        """As `scan.Reader.read`. Raises ClipError, also where the child dies or is ended."""
        with self._child() as child:
            return child.decode(source, task)

    def warm(self) -> None:
        """Starts a child if there is none, without waiting for it."""
        with self._turn:
            if not self._idle and not self._busy and not self._starting:
                with contextlib.suppress(ClipError):  # it will be said when one is needed
                    self._idle.append(Child(self._module))

    @property
    def pids(self) -> list[int]:
        """Of the children."""
        with self._turn:
            return [child.pid for child in (*self._idle, *self._busy)]

    def close(self) -> None:
        """Ends all children; what they are at fails."""
        with self._turn:
            children, self._idle = [*self._idle, *self._busy], []
        for child in children:
            child.close()

    def __enter__(self) -> Cage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def forget(self) -> None:
        """After a fork: the children are the parent's, and so may be the lock."""
        for child in (*self._idle, *self._busy):
            child.forget()
        self.__init__(self._most, self._module)  # type: ignore[misc]

    @contextlib.contextmanager
    def _child(self) -> Iterator[Child]:
        with self._turn:
            self._turn.wait_for(lambda: self._idle or len(self._busy) + self._starting < self._most)
            child = self._idle.pop() if self._idle else None
            if child and child.spent:
                child.close()
                child = None
            self._starting += 1
        try:
            child = child or Child(self._module)
        finally:
            with self._turn:
                self._starting -= 1
                if child:
                    self._busy.add(child)
                self._turn.notify_all()
        try:
            yield child
        except BaseException as error:
            # Of a refusal the child lives on; anything else left it in the middle of something.
            if not isinstance(error, ClipError):
                child.close()
            raise
        finally:
            if spent := child.spent:
                child.close()
            with self._turn:
                self._busy.discard(child)
                if not spent:
                    self._idle.append(child)
                self._turn.notify_all()


@contextlib.contextmanager
def _shared(size: int) -> Iterator[tuple[int, mmap.mmap]]:
    # Sealed: whoever could shrink it would end this process at the next read.
    descriptor = os.memfd_create("clips", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        memory = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
        try:
            yield descriptor, memory
        finally:
            with contextlib.suppress(BufferError):
                memory.close()
    finally:
        os.close(descriptor)


def _checked(answer: dict[str, Any], clips: int) -> tuple[list[float], float, int, int]:
    starts = [float(start) for start in answer["starts"]]
    duration, decoded, expected = float(answer["duration"]), int(answer["decoded"]), int(answer["expected"])
    if len(starts) != clips or not all(math.isfinite(number) for number in (*starts, duration)):
        raise ValueError("starts and duration")
    return starts, duration, decoded, expected


def _obituary(code: int | None, task: Task | None) -> str:
    number = -(code or 0)
    if number == signal.SIGXCPU and task:
        return (
            f"decoding took more than {task.limits.max_cpu_seconds:g} seconds of CPU and was ended; "
            "scale the video down or raise max_cpu_seconds"
        )
    how = signal.Signals(number).name if number in signal.valid_signals() else f"exit code {code}"
    return f"it ended its decoder ({how}): damaged, or made to do so; re-encode the original"


def _address_space(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[0]) * mmap.PAGESIZE


def cpu_seconds(pid: int) -> float:
    """Of CPU that a process has had."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return time.process_time()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


_warned = threading.Event()


def _warn_once(text: str) -> None:
    if not _warned.is_set():
        _warned.set()
        logger.warning("%s", text)


# One for the whole process: how many videos it decodes at a time is a matter of its cores.
default: Final = Cage()
atexit.register(default.close)
os.register_at_fork(after_in_child=default.forget)

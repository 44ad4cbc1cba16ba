"""A live source as a take, read by a child process.

In one process OpenCV opens one video at a time, and a camera that hangs while it is opened would keep all others and
every file waiting. And what comes over a network may crash a decoder: that ends a child, not the service.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import hardroute
from hardroute.runtime.clips import ClipContract
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams import wire
from hardroute.runtime.streams.open_video import Take
from hardroute.runtime.streams.settings import StreamSettings

# Python and its libraries take a moment, and longer on a machine that is busy.
_START = 30.0
# The child keeps the time limit itself; this is for one that hangs.
_GRACE = 2.0


class IsolatedTake:
    """Frames of a child, fitted to the contract already."""

    clip, sha256 = "", ""

    def __init__(self, child: subprocess.Popen[bytes], task: wire.Task) -> None:
        self._child, self._task = child, task
        contract = task.contract
        self._shape = (contract.height, contract.width, 3)
        assert child.stdout  # noqa: S101 -- for the type checker: it was asked for
        self._receiver = wire.Receiver(child.stdout.fileno(), contract.height * contract.width * 3)
        self._frame: np.ndarray | None = None
        self._fps: float | None = None

    @property
    def fps(self) -> float:
        """See `Take`; waits until the source is open, for only then is it known."""
        # No cached_property: before Python 3.12 all of its instances wait for each other.
        if self._fps is None:
            self._fps = float(self._receive(_START + self._task.timeout, wire.OPENED)[1])
        return self._fps

    def grab(self) -> float | None:
        """See `Take`."""
        kind, data = self._receive(self._task.timeout + _GRACE, wire.FRAME, wire.END)
        if kind == wire.END:
            return None
        stamp, pixels = wire.unpack_frame(data)
        whole = len(pixels) == self._shape[0] * self._shape[1] * 3
        self._frame = np.frombuffer(pixels, np.uint8).reshape(self._shape) if whole else None
        return stamp

    def retrieve(self) -> np.ndarray | None:
        """See `Take`."""
        return self._frame

    def cancel(self) -> None:
        """See `Take`."""
        self._child.kill()

    def _receive(self, timeout: float, *expected: bytes) -> tuple[bytes, bytes]:
        name = self._task.name
        try:
            kind, data = self._receiver.receive(timeout)
        except TimeoutError:
            raise ClipError(f"{name}: no frame for {timeout:g} seconds") from None
        except EOFError:
            raise ClipError(f"{name}: its reader died; the source may send what a decoder cannot bear") from None
        if kind == wire.ERROR:
            raise ClipError(data.decode("utf-8", errors="replace"))
        if kind not in expected:
            raise ClipError(f"{name}: its reader answered out of turn")
        return kind, data


@contextlib.contextmanager
def open_live_take(target: int | str, name: str, contract: ClipContract, settings: StreamSettings) -> Iterator[Take]:
    """A camera's number or a URL, read in a process of its own; see `Take`. Raises ClipError."""
    task = wire.Task(target, name, settings.timeout, contract, settings.limits)
    # The child finds this very code, and nothing that lies in the current folder.
    paths = [str(Path(hardroute.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "hardroute.runtime.streams.reader_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    except OSError as error:  # out of processes, files or memory, which may pass
        raise ClipError(f"{name}: its reader cannot be started ({error.strerror}); raise that limit") from None
    with child:  # closes the pipes and waits
        try:
            # Not among the arguments, which every user of the machine can read: a URL may hold a password.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(task.to_json() + b"\n")  # type: ignore[union-attr]
                child.stdin.flush()  # type: ignore[union-attr]
            yield IsolatedTake(child, task)
        finally:
            child.kill()

"""`python -m hardroute.runtime.streams.reader_child FD...`: reads one source for its parent, see `reader_process`.

It ends with its source, with its parent, and with whatever a hostile stream does to the decoder. It cuts the windows
itself, so that only frames that one of them shows are converted and sent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import urlsplit

from hardroute.runtime.clips import sandbox
from hardroute.runtime.clips.cage_child import warm_up
from hardroute.runtime.clips.network_source import CameraFrames, LiveFrames, open_camera, open_url
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams import wire
from hardroute.runtime.streams.cutting import Step, cut_windows
from hardroute.runtime.streams.open_video import file_steps

# Seconds between messages without a window: the parent hears that frames still come.
_EVERY = 1.0


def main() -> None:
    """Takes a `wire.Task` from stdin and writes steps to stdout; a file is open as the descriptor in the arguments."""
    # The parent decides when this ends; Ctrl-C in its terminal would reach here first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not end up between the frames.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warm_up()
    task = wire.Task.from_json(sys.stdin.buffer.readline())
    with contextlib.suppress(BrokenPipeError):
        try:
            wire.send(pipe, wire.READY)
            spent = time.process_time()
            for step in _steps(task, pipe):
                now = time.process_time()
                step.milliseconds, spent = 1000 * (now - spent), now
                wire.send(pipe, wire.STEP, wire.pack_step(step))
            wire.send(pipe, wire.END)
        except ClipError as error:
            wire.send(pipe, wire.ERROR, str(error).encode())
        except MemoryError:
            wire.send(pipe, wire.ERROR, f"{task.manner.name}: takes more memory than is allowed".encode())


def _steps(task: wire.Task, pipe: BinaryIO) -> Iterator[Step]:
    manner = task.manner
    if task.target is None:
        sandbox.confine()
        wire.send(pipe, wire.OPENED)
        with open(int(sys.argv[1]), "rb") as file:
            yield from file_steps(file, task.demuxer, manner, _EVERY)
        return
    opening: contextlib.AbstractContextManager[LiveFrames | CameraFrames]
    if isinstance(task.target, int):
        opening = open_camera(task.target, manner.limits)
    else:
        # Once, before the filter: the library that looks names up loads what it needs.
        with contextlib.suppress(OSError, UnicodeError):
            socket.getaddrinfo(urlsplit(task.target).hostname, None)
        sandbox.confine(network=True)
        opening = open_url(task.target, manner.name, task.timeout, manner.limits, redirects=task.redirects)
    with opening as source:
        if isinstance(source, LiveFrames):
            # The connection stands; from here on nothing else is opened.
            sandbox.confine()
        wire.send(pipe, wire.OPENED)
        beat = _Beat(pipe, source)
        for step in cut_windows(source.frames(beat), source.fps, manner, _EVERY):
            step.corrupt += beat.lost()
            beat.said()
            yield step


class _Beat:
    """Lets the parent know, while packets come of which nothing can be shown yet."""

    def __init__(self, pipe: BinaryIO, source: LiveFrames | CameraFrames) -> None:
        self._pipe, self._source = pipe, source
        self._last = time.monotonic()
        self._lost = 0

    def __call__(self) -> None:
        if time.monotonic() - self._last > 2 * _EVERY:
            wire.send(self._pipe, wire.STEP, wire.pack_step(Step(corrupt=self.lost())))
            self.said()

    def lost(self) -> int:
        """Packets since the last call that could not be decoded."""
        lost, self._lost = self._source.damaged - self._lost, self._source.damaged
        return lost

    def said(self) -> None:
        self._last = time.monotonic()


if __name__ == "__main__":
    main()

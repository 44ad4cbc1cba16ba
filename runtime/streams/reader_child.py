"""`python -m hardroute.runtime.streams.reader_child`: reads one live source for its parent, see `isolated`.

It ends with its source, with its parent, and with whatever a hostile stream does to the decoder.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time

import cv2

from hardroute.runtime.clips.frame_source import open_camera, open_url, stated_count
from hardroute.runtime.clips.preprocess import fit_frame
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams import wire
from hardroute.runtime.streams.open_video import CaptureTake


def main() -> None:
    """Takes a `wire.Task` from stdin and writes frames to stdout."""
    # The parent decides when this ends; Ctrl-C in its terminal would reach here first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A reader has nothing to write, and its memory may hold a password.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Whatever a library prints must not end up between the frames.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    task = wire.Task.from_json(sys.stdin.buffer.readline())
    with contextlib.suppress(BrokenPipeError):
        try:
            _read(task, pipe)
        except ClipError as error:
            wire.send(pipe, wire.ERROR, str(error).encode())


def _read(task: wire.Task, pipe: wire.BinaryIO) -> None:
    if isinstance(task.target, int):
        opening = open_camera(task.target)
    else:
        opening = open_url(task.target, task.name, task.timeout)
    with opening as capture:
        now = time.monotonic if _has_no_clock(task.target, capture) else None
        take = CaptureTake(capture, task.name, task.limits, now=now)
        wire.send(pipe, wire.OPENED, str(take.fps).encode())
        while (stamp := take.grab()) is not None:
            frame = take.retrieve()
            fitted = b"" if frame is None else fit_frame(frame, task.contract).tobytes()
            wire.send(pipe, wire.FRAME, wire.pack_frame(stamp, fitted))
        wire.send(pipe, wire.END)


def _has_no_clock(target: int | str, capture: cv2.VideoCapture) -> bool:
    # Motion JPEG over HTTP carries no times, and FFmpeg makes some up from a guessed rate. Cameras have a clock that
    # began at some time of their own; the arrival is as good.
    if isinstance(target, int):
        return True
    codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(8, "little", signed=True)[:4]
    return codec == b"MJPG" and not stated_count(capture) and not target.lower().startswith("rtsp")


if __name__ == "__main__":
    main()

"""A video that is open for reading, whatever it comes from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from hardroute.runtime.clips import Limits
from hardroute.runtime.clips.file_type import SourceFile, check_file
from hardroute.runtime.clips.frame_source import RE_ENCODE, open_capture, stated_count, stated_fps, stated_pixels
from hardroute.runtime.clips.sampling import usable_fps
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams.settings import StreamSettings

if TYPE_CHECKING:
    from hardroute.runtime.streams.source import FrameSource


class Take(Protocol):
    """An open video.

    Attributes:
        clip, sha256: name and digest of the file, for the log; "" where there is no file.
        fps: frames a second, used where a timestamp is of no use.
    """

    clip: str
    sha256: str

    @property
    def fps(self) -> float: ...

    def grab(self) -> float | None:
        """Goes to the next frame and says when it starts, in seconds from any origin; None: there is none."""

    def retrieve(self) -> np.ndarray | None:
        """That frame, (h, w, 3) uint8 BGR, valid until the next one is retrieved; None: it cannot be converted.

        Raises ClipError if it is too large.
        """

    def cancel(self) -> None:
        """Called by another thread when nobody waits for frames any more; ends a `grab` that hangs, if it can."""


class CaptureTake:
    """OpenCV's reader as a take.

    Args:
        now: when frames start, where the capture's own clock is not to be used.
        at_end: called with the frames read and the seconds they took, when no more come; may raise ClipError.
    """

    def __init__(
        self,
        capture: cv2.VideoCapture,
        name: str,
        limits: Limits,
        clip: str = "",
        sha256: str = "",
        now: Callable[[], float] | None = None,
        at_end: Callable[[int, float], None] | None = None,
    ) -> None:
        self.clip, self.sha256 = clip, sha256
        self.fps = usable_fps(stated_fps(capture))
        self._capture, self._name, self._limits, self._now, self._at_end = capture, name, limits, now, at_end
        self._frame: np.ndarray | None = None
        self._frames, self._first, self._last = 0, 0.0, 0.0
        limits.check_pixels(name, *stated_pixels(capture))

    def grab(self) -> float | None:
        try:
            if not self._capture.grab():
                if self._at_end:
                    self._at_end(self._frames, self._last - self._first + 1 / self.fps)
                return None
            stamp = self._now() if self._now else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        except cv2.error as error:
            raise ClipError(f"{self._name}: the video reader gave up ({error.err}); {RE_ENCODE}") from None
        self._first = self._first if self._frames else stamp
        self._last = max(self._last, stamp)
        self._frames += 1
        return stamp

    def retrieve(self) -> np.ndarray | None:
        try:
            # Into the same memory each time: fresh pages for every full-size frame cost as much as its conversion.
            ok, frame = self._capture.retrieve(self._frame)
        except cv2.error:
            return None
        if not ok or frame is None or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            return None
        self._limits.check_pixels(self._name, frame.shape[1], frame.shape[0])
        self._frame = frame
        return frame

    def cancel(self) -> None:
        """A file does not hang for longer than its time limit."""


class FrameTake:
    """A user's frames as a take."""

    clip, sha256 = "", ""

    def __init__(self, frames: FrameSource, name: str, limits: Limits) -> None:
        self.fps = usable_fps(frames.fps)
        self._frames, self._name, self._limits = frames, name, limits
        self._frame: np.ndarray | None = None

    def grab(self) -> float | None:
        read = self._frames.read()
        if read is None:
            return None
        stamp, self._frame = read
        return stamp

    def retrieve(self) -> np.ndarray | None:
        frame = self._frame
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            return None
        self._limits.check_pixels(self._name, frame.shape[1], frame.shape[0])
        return cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) if frame.size else None

    def cancel(self) -> None:
        """Whoever gives the frames has no such call."""


@contextlib.contextmanager
def open_file_take(path: Path, settings: StreamSettings) -> Iterator[Take]:
    """A video file. Its end is an error where the header promised more, or the file was changed meanwhile."""
    file = check_file(path, settings.limits)
    with open_capture(path, settings.timeout) as capture:
        promised, rate = stated_count(capture), usable_fps(stated_fps(capture))

        def at_end(frames: int, seconds: float) -> None:
            file.check_unchanged()
            file.check_complete(frames, _expected(file, promised, rate, frames, seconds))

        yield CaptureTake(capture, str(path), settings.limits, path.name, file.sha256, at_end=at_end)


def _expected(file: SourceFile, promised: int, rate: float, frames: int, seconds: float) -> int:
    # As in `Reader.expected`: a container that states a length only, promises seconds.
    return promised if file.counts_frames or not frames else round(frames * promised / rate / seconds)

"""A video that is open for reading in this process: frames of one's own, or a file whose maker is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from hardroute.runtime.clips import Limits
from hardroute.runtime.clips.file_type import SourceFile
from hardroute.runtime.clips.frames import Shown
from hardroute.runtime.clips.sampling import usable_fps
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams.cutting import Manner, Step, cut_windows


class Take(Protocol):
    """An open video, frame by frame.

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
        """That frame, (h, w, 3) uint8 RGB, valid until the next one is retrieved; None: it cannot be converted.

        Raises ClipError if it is too large.
        """

    def cancel(self) -> None:
        """Called by another thread when nobody waits for frames any more; ends a `grab` that hangs, if it can."""


@runtime_checkable
class WindowTake(Protocol):
    """An open video that is cut where it is read. Attributes and `cancel`: see `Take`."""

    clip: str
    sha256: str

    def steps(self, manner: Manner) -> Iterator[Step]:
        """Its windows. Raises ClipError."""

    def cancel(self) -> None: ...


@runtime_checkable
class FrameSource(Protocol):
    """Frames of your own: rendered, received some other way, or made up to test for hours in minutes.

    Attributes:
        fps: frames a second, used where a timestamp is of no use.

    >>> class Noise:
    ...     fps = 25.0
    ...     def __init__(self, frames: int) -> None:
    ...         self.left = frames
    ...     def read(self) -> tuple[float, np.ndarray] | None:
    ...         if not self.left:
    ...             return None
    ...         self.left -= 1
    ...         return -self.left / self.fps, np.random.default_rng(self.left).integers(0, 256, (48, 64, 3), np.uint8)
    >>> for event in Stream(engine, Noise(25 * 3600)):  # an hour of video  # doctest: +SKIP
    ...     print(event.start, event.prediction.label)
    """

    fps: float

    def read(self) -> tuple[float, np.ndarray] | None:
        """The next frame: its time in seconds, from any origin, and (h, w, 3) uint8 RGB. None: there are no more.

        Raises:
            ClipError: the source is broken; the stream ends with this error.
        """


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
        return frame if frame.size else None

    def cancel(self) -> None:
        """Whoever gives the frames has no such call."""


class FileTake:
    """A file, decoded in this process."""

    def __init__(self, source: SourceFile) -> None:
        self.clip, self.sha256 = source.path.name, source.sha256
        self._source, self._cancelled = source, False

    def steps(self, manner: Manner) -> Iterator[Step]:
        """See `WindowTake`. Raises ClipError where the track should hold more, or the file was changed meanwhile."""
        source = self._source
        manner = replace(manner, name=str(source.path))
        for step in file_steps(source.file, source.demuxer, manner, every=0.0):
            if self._cancelled:
                return
            yield step
        source.check_unchanged()

    def cancel(self) -> None:
        """See `Take`."""
        self._cancelled = True


def file_steps(file: Any, demuxer: str, manner: Manner, every: float) -> Iterator[Step]:
    """The windows of a file that is open, in one read from its start to its end."""
    # With FFmpeg, which a program need not load whose files are read in the cage.
    from hardroute.runtime.clips.frame_source import open_file
    from hardroute.runtime.clips.packets import Tally, check_complete

    with open_file(file, manner.name, demuxer, manner.limits) as track:
        tally, decoded, interlaced = Tally(track), 0, False

        def packets() -> Iterator[Any]:
            for packet in track.packets():
                tally.add(packet)
                yield packet

        def frames() -> Iterator[tuple[float, Shown]]:
            nonlocal decoded, interlaced
            for frame in track.decode(packets()):
                decoded, interlaced = decoded + 1, interlaced or frame.interlaced
                yield frame.stamp, frame
            # Before the rest becomes a window: what is missing may have been a part of it.
            if not decoded:
                raise ClipError(f"{manner.name}: not one frame could be decoded (damaged); copy it again")
            check_complete(manner.name, decoded, tally.expected(decoded, interlaced))

        yield from cut_windows(frames(), track.fps, manner, every)

"""One sequential read through a video, in bounded memory: frames are resized as they come, never held."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import cv2
import numpy as np

from hardroute.runtime.clips import sampling
from hardroute.runtime.clips.contract import ClipContract
from hardroute.runtime.clips.file_type import SourceFile
from hardroute.runtime.clips.frame_source import RE_ENCODE, open_capture, stated_count, stated_fps, stated_pixels
from hardroute.runtime.clips.limits import Limits
from hardroute.runtime.clips.preprocess import fit_bgr
from hardroute.runtime.errors import ClipError

# A frame is converted if a sample may fall within this many frames' time: its own and half of one more, since the
# next frame may come late.
REACH = 1.5


@dataclass
class Scan:
    """One sequential read: when each frame starts, and the resized frames that were kept.

    fps, count: the header's (count 0: it does not say). starts: seconds from the first frame. kept: frames
    (H, W, 3) uint8 RGB by index. complete: the window that was asked for ended before the video did.
    """

    fps: float
    count: int
    complete: bool = False
    starts: np.ndarray = field(default_factory=lambda: np.empty(0))
    kept: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        return float(self.starts[-1]) + 1 / self.fps


class Reader:
    """Reads a file from its start, as often as asked; the wall clock runs from the reader's making."""

    def __init__(self, file: SourceFile, contract: ClipContract, limits: Limits, spread: sampling.Spread) -> None:
        self.file, self.contract, self.limits, self.spread = file, contract, limits, spread
        self.path = file.path
        self.deadline = time.monotonic() + limits.max_decode_seconds
        self._frame: np.ndarray | None = None

    def run(self, wanted: set[int] | None) -> Scan:
        """Keep the frames `wanted` by index; None: those that the header's length and rate make likely."""
        with open_capture(self.path, self._time_left()) as capture:
            try:
                return self._scan(capture, wanted)
            except cv2.error as error:
                raise ClipError(f"{self.path}: the video reader gave up ({error.err}); {RE_ENCODE}") from None

    def expected(self, scan: Scan) -> int:
        """Frames that the header promises up to the end of the window; 0 where it does not say."""
        if scan.complete:
            return len(scan.starts)
        promised = scan.count / scan.fps
        window = min(promised, self.spread.end or promised)
        if self.file.counts_frames or not len(scan.starts):
            return min(scan.count, round(window * scan.fps))
        # Matroska and MPEG state a length, from which OpenCV makes up a count by a guessed rate. That means
        # nothing where the rate varies, so the promise is taken in seconds, at the rate that was seen.
        return round(len(scan.starts) * window / scan.duration)

    def _scan(self, capture: cv2.VideoCapture, wanted: set[int] | None) -> Scan:
        window = self.spread.end
        scan = Scan(sampling.usable_fps(stated_fps(capture)), stated_count(capture))
        self.limits.check_pixels(self.path, *stated_pixels(capture))
        promised = scan.count / scan.fps
        self._check_length(self.expected(scan), min(promised, window or promised))
        forecast = self._forecast(scan) if wanted is None else None
        stamps: list[float] = []
        clock = sampling.Clock(scan.fps)
        pending: tuple[float, np.ndarray] | None = None
        while capture.grab():
            self._time_left()
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            start = clock.tick(stamp)
            if forecast and pending and forecast.shows(pending[0], start):
                scan.kept[len(stamps) - 1] = fit_bgr(pending[1], self.contract)
                if len(scan.kept) > 4 * self.contract.frames * self.spread.count:
                    # The header's rate is far off: keep nothing more, and leave it to a second pass.
                    forecast = None
            pending = None
            if window is not None and start >= window:
                scan.complete = True
                break
            index = len(stamps)
            stamps.append(stamp)
            self._check_length(index + 1, start)
            if wanted is not None and index in wanted:
                scan.kept[index] = fit_bgr(self._retrieve(capture), self.contract)
            elif forecast and forecast.shows(start, start + REACH / scan.fps):
                # Resizing costs most, so it waits until the next frame tells how long this one was shown.
                pending = start, self._retrieve(capture)
        if pending:
            # Nothing follows, so the last frame stays on display.
            scan.kept[len(stamps) - 1] = fit_bgr(pending[1], self.contract)
        if not stamps:
            raise ClipError(
                f"{self.path}: not one frame could be decoded (damaged, or a codec that this OpenCV lacks); {RE_ENCODE}"
            )
        scan.fps = sampling.usable_fps(stated_fps(capture), stamps)
        scan.starts = sampling.clean_stamps(stamps, scan.fps)
        return scan

    def _forecast(self, scan: Scan) -> sampling.Forecast:
        promised = scan.count / scan.fps
        # Genuine UCF-101 and HMDB-51 files are often one frame short, which shifts their late samples.
        return sampling.Forecast.over(self.contract.frames, promised - 1 / scan.fps, promised, self.spread)

    def _retrieve(self, capture: cv2.VideoCapture) -> np.ndarray:
        # Into the same memory each time: fresh pages for every full-size frame cost as much as its conversion.
        ok, frame = capture.retrieve(self._frame)
        if not ok or frame is None or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ClipError(f"{self.path}: a frame cannot be converted to 8-bit colour; {RE_ENCODE}")
        self.limits.check_pixels(self.path, frame.shape[1], frame.shape[0])
        self._frame = frame
        return frame

    def _check_length(self, frames: int, seconds: float) -> None:
        if frames > self.limits.max_frames:
            raise ClipError(
                f"{self.path}: {frames:,} frames or more, above the limit of {self.limits.max_frames:,}; "
                "cut it into shorter videos or raise max_frames"
            )
        if seconds > self.limits.max_seconds:
            raise ClipError(
                f"{self.path}: {seconds:,.1f} seconds or more, above the limit of "
                f"{self.limits.max_seconds:,g}; cut it into shorter videos or raise max_seconds"
            )

    def _time_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ClipError(
                f"{self.path}: decoding took longer than {self.limits.max_decode_seconds:g} seconds; "
                "scale the video down or raise max_decode_seconds"
            )
        return left

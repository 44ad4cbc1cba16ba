"""One sequential read through a video, in bounded memory: frames are resized as they come, never held."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from runtime.clips import sampling
from runtime.clips.capture import RE_ENCODE, open_capture, stated_count, stated_fps, stated_pixels
from runtime.clips.container import SourceFile
from runtime.clips.contract import ClipContract
from runtime.clips.limits import Limits
from runtime.clips.preprocess import fit_frame
from runtime.errors import ClipError


@dataclass
class Scan:
    """One sequential read: when each frame starts, and the resized frames that were kept.

    fps, count: the header's (count 0: it does not say). starts: seconds from the first frame. kept: frames
    (H, W, 3) uint8 RGB by index. complete: the contract's window ended before the video did.
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

    def __init__(self, file: SourceFile, contract: ClipContract, limits: Limits) -> None:
        self.file, self.contract, self.limits = file, contract, limits
        self.path = file.path
        self.deadline = time.monotonic() + limits.max_decode_seconds

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
        window = min(promised, self.contract.seconds or promised)
        if self.file.counts_frames or not len(scan.starts):
            return min(scan.count, round(window * scan.fps))
        # Matroska and MPEG state a length, from which OpenCV makes up a count by a guessed rate. That means
        # nothing where the rate varies, so the promise is taken in seconds, at the rate that was seen.
        return round(len(scan.starts) * window / scan.duration)

    def _scan(self, capture: cv2.VideoCapture, wanted: set[int] | None) -> Scan:
        window = self.contract.seconds
        scan = Scan(sampling.usable_fps(stated_fps(capture)), stated_count(capture))
        self._check_pixels(*stated_pixels(capture))
        promised = scan.count / scan.fps
        self._check_length(self.expected(scan), min(promised, window or promised))
        likely = self._likely(scan) if wanted is None else None
        stamps: list[float] = []
        first, clock = 0.0, 0.0
        while capture.grab():
            self._time_left()
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            first = first if stamps else stamp
            clock = stamp - first if not stamps or stamp - first > clock else clock + 1 / scan.fps
            if window is not None and clock >= window:
                scan.complete = True
                break
            index = len(stamps)
            stamps.append(stamp)
            self._check_length(index + 1, clock)
            if likely(clock) if likely else index in (wanted or ()):
                scan.kept[index] = self._retrieve(capture)
                if wanted is None and len(scan.kept) > 4 * self.contract.frames:
                    # The header's rate is far off: keep nothing more, and leave it to a second pass.
                    likely, wanted = None, set()
        if not stamps:
            raise ClipError(
                f"{self.path}: not one frame could be decoded (damaged, or a codec that this OpenCV lacks); {RE_ENCODE}"
            )
        scan.fps = sampling.usable_fps(stated_fps(capture), stamps)
        scan.starts = sampling.clean_stamps(stamps, scan.fps)
        return scan

    def _likely(self, scan: Scan) -> Callable[[float], bool]:
        window = self.contract.seconds or scan.count / scan.fps
        times = sampling.sample_times(self.contract.frames, window).tolist()
        # Half a frame more than a frame's own time on display covers the rounding of containers' clocks.
        reach = 1.5 / scan.fps

        def likely(start: float) -> bool:
            later = bisect.bisect_left(times, start - 0.5 / scan.fps)
            return later < len(times) and times[later] < start + reach

        return likely

    def _retrieve(self, capture: cv2.VideoCapture) -> np.ndarray:
        ok, frame = capture.retrieve()
        if not ok or frame is None or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ClipError(f"{self.path}: a frame cannot be converted to 8-bit colour; {RE_ENCODE}")
        self._check_pixels(frame.shape[1], frame.shape[0])
        return np.ascontiguousarray(fit_frame(frame, self.contract)[..., ::-1])

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self.limits.max_pixels:
            raise ClipError(
                f"{self.path}: frames of {width}x{height} pixels, above the limit of "
                f"{self.limits.max_pixels:,}; scale the video down or raise max_pixels"
            )

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

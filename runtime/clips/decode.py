"""The one decode: a video file becomes a clip of the contract's shape, or one line that says why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from runtime.clips import sampling
from runtime.clips.capture import RE_ENCODE, open_capture, stated_count, stated_fps, stated_pixels
from runtime.clips.container import check_file
from runtime.clips.contract import ClipContract
from runtime.clips.limits import Limits
from runtime.clips.preprocess import fit_frame
from runtime.errors import ClipError

# Containers count frames that no decoder returns: genuine UCF-101 and HMDB-51 files are often one short.
SHORT_FRAMES, SHORT_SHARE = 2, 0.02


@dataclass(frozen=True)
class DecodedClip:
    """A clip in the contract's shape and where it came from.

    frames: (T, H, W, 3) uint8 RGB. name: the file's name. sha256: of the file's bytes, hex. frames_decoded and
    frames_expected: in the window, expected by the header (0: it does not say). seconds: playing time decoded.
    """

    frames: np.ndarray
    name: str
    sha256: str
    frames_decoded: int
    frames_expected: int
    seconds: float


def decode(
    path: str | Path, contract: ClipContract, limits: Limits = Limits(), *, allow_short: bool = False
) -> DecodedClip:
    """Decode the frames on display at the contract's sampling times.

    A video that yields clearly fewer frames than its header promises (damaged or cut off) is an error unless
    `allow_short`; then the clip spans what could be decoded. Memory is bounded by a few full-size frames plus a few
    times the clip itself, whatever the video. Raises ClipError: one line with the file, the reason and the mend.

    >>> clip = decode("clip.mp4", ClipContract(frames=12, height=48, width=48))  # doctest: +SKIP
    >>> clip.frames.shape  # doctest: +SKIP
    (12, 48, 48, 3)
    """
    path = Path(path)
    sha256 = check_file(path, limits)
    pass_ = _Pass(path, contract, limits, time.monotonic() + limits.max_decode_seconds)
    scan = pass_.run(None)
    expected = pass_.expected(scan)
    if expected - len(scan.starts) > max(SHORT_FRAMES, SHORT_SHARE * expected) and not allow_short:
        raise ClipError(
            f"{path}: only {len(scan.starts)} of the {expected} frames that its header promises could be decoded "
            "(damaged or cut off); copy it again, or allow short clips to use what there is"
        )
    indices = sampling.frames_on_display(
        scan.starts, sampling.sample_times(contract.frames, contract.seconds or scan.duration)
    )
    wanted = set(indices.tolist())
    if not wanted <= scan.kept.keys():
        # The header's promise about length or rate was off, so the first pass kept other frames than it should have.
        scan = pass_.run(wanted)
        if not wanted <= scan.kept.keys():
            raise ClipError(f"{path}: decodes differently each time; {RE_ENCODE}")
    return DecodedClip(
        frames=np.stack([scan.kept[i] for i in indices.tolist()]),
        name=path.name,
        sha256=sha256,
        frames_decoded=len(scan.starts),
        frames_expected=expected,
        seconds=scan.duration,
    )


@dataclass
class _Scan:
    """One sequential read: when each frame starts (seconds from the first), and the resized frames that were kept."""

    fps: float
    count: int
    complete: bool = False
    starts: np.ndarray = field(default_factory=lambda: np.empty(0))
    kept: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        return float(self.starts[-1]) + 1 / self.fps


class _Pass:
    """Reads a file from its start, resizing what is kept as it comes: full-size frames are never held."""

    def __init__(self, path: Path, contract: ClipContract, limits: Limits, deadline: float) -> None:
        self.path, self.contract, self.limits, self.deadline = path, contract, limits, deadline

    def run(self, wanted: set[int] | None) -> _Scan:
        """Keep the frames `wanted` by index; None: those that the header's length and rate make likely."""
        with open_capture(self.path, self._time_left()) as capture:
            try:
                return self._scan(capture, wanted)
            except cv2.error as error:
                raise ClipError(f"{self.path}: the video reader gave up ({error.err}); {RE_ENCODE}") from None

    def expected(self, scan: _Scan) -> int:
        """Frames that the header promises up to the end of the window; 0 where it does not say."""
        if scan.complete:
            return len(scan.starts)
        if self.contract.seconds is None:
            return scan.count
        return min(scan.count, int(self.contract.seconds * scan.fps))

    def _scan(self, capture: cv2.VideoCapture, wanted: set[int] | None) -> _Scan:
        window = self.contract.seconds
        scan = _Scan(sampling.usable_fps(stated_fps(capture)), stated_count(capture))
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
                if likely and len(scan.kept) > 4 * self.contract.frames:
                    likely = lambda _: False  # noqa: E731  the header's rate was far off: leave it to a second pass
        if not stamps:
            raise ClipError(
                f"{self.path}: not one frame could be decoded (damaged, or a codec that this OpenCV build lacks); "
                f"{RE_ENCODE}"
            )
        scan.fps = sampling.usable_fps(stated_fps(capture), stamps)
        scan.starts = sampling.clean_stamps(stamps, scan.fps)
        return scan

    def _likely(self, scan: _Scan) -> Callable[[float], bool]:
        times = sampling.sample_times(self.contract.frames, self.contract.seconds or scan.count / scan.fps)
        # Half a frame more than a frame's own time on display covers the rounding of containers' clocks.
        reach = 1.5 / scan.fps

        def likely(start: float) -> bool:
            later = np.searchsorted(times, start - 0.5 / scan.fps)
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
                f"{self.path}: frames of {width}x{height} pixels, more than the limit of {self.limits.max_pixels:,} "
                "pixels; scale the video down or raise max_pixels"
            )

    def _check_length(self, frames: int, seconds: float) -> None:
        if frames > self.limits.max_frames:
            raise ClipError(
                f"{self.path}: {frames:,} frames or more, above the limit of {self.limits.max_frames:,}; "
                "cut it into shorter videos or raise max_frames"
            )
        if seconds > self.limits.max_seconds:
            raise ClipError(
                f"{self.path}: {seconds:,.1f} seconds long or more, above the limit of {self.limits.max_seconds:,g}; "
                "cut it into shorter videos or raise max_seconds"
            )

    def _time_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ClipError(
                f"{self.path}: decoding took longer than {self.limits.max_decode_seconds:g} seconds; "
                "scale the video down or raise max_decode_seconds"
            )
        return left

"""Which frames of a video a clip is made of: sampling by timestamp, not by index."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEFAULT_FPS = 25.0
# One frame without a timestamp (AVI's last, for one) is mended in place; more than this share means that the
# container's clock cannot be believed at all.
MAX_BAD_SHARE = 0.02
_EPSILON = 1e-6
# What containers' clocks lose by rounding, in seconds (Matroska keeps whole milliseconds).
_TICK = 1e-3


def sample_times(frames: int, window: float) -> np.ndarray:
    """The centres of `frames` equal parts of [0, window], in seconds, (frames,) float64.

    >>> sample_times(4, 2.0).tolist()
    [0.25, 0.75, 1.25, 1.75]
    """
    return (np.arange(frames) + 0.5) * (window / frames)


def frames_on_display(starts: Sequence[float] | np.ndarray, times: np.ndarray) -> np.ndarray:
    """Index of the frame that a player shows at each of `times`: the last one whose start is not after it.

    `starts` are the frames' timestamps in seconds, increasing, the first being 0. After the last frame's
    start that frame stays on display, so a video shorter than its window holds its last frame.
    """
    # Containers keep time in whole ticks (Matroska: milliseconds); the epsilon keeps a centre that meets a
    # frame's start exactly from falling on either side by rounding.
    return np.clip(np.searchsorted(starts, times + _EPSILON, side="right") - 1, 0, len(starts) - 1)


def shown_before(time: float, start: float) -> bool:
    """Whether `time` shows the frame before the one that begins at `start`: `frames_on_display`, frame by frame."""
    return time + _EPSILON < start


def usable_fps(stated: float, stamps: Sequence[float] = ()) -> float:
    """The header's frame rate if a camera could have it, else that of the timestamps, else 25."""
    if math.isfinite(stated) and 0.05 <= stated <= 1000:
        return stated
    steps = np.diff(stamps)
    steps = steps[steps > 0]
    return float(1 / np.median(steps)) if len(steps) else DEFAULT_FPS


class Clock:
    """When frames start, in seconds from the first one, told as they come.

    A frame without a usable stamp (not a number, or not after the frame before) follows that frame by 1/fps.

    Attributes:
        bad: how many of them there were.
    """

    def __init__(self, fps: float) -> None:
        self.bad = 0
        self._step = 1 / fps
        self._origin: float | None = None
        self._now = 0.0

    def tick(self, stamp: float) -> float:
        """The start of the next frame, whose container states `stamp` seconds."""
        usable = math.isfinite(stamp)
        if self._origin is None:
            self._origin = stamp if usable else 0.0
        else:
            usable = usable and stamp - self._origin > self._now
            self._now = stamp - self._origin if usable else self._now + self._step
        self.bad += not usable
        return self._now


def clean_stamps(stamps: Sequence[float], fps: float) -> np.ndarray:
    """Timestamps that start at 0 and increase, in seconds.

    Single frames without a usable stamp are mended by `Clock`; where more are unusable, the container's
    clock is given up and frame i starts at i/fps.
    """
    clock = Clock(fps)
    starts = np.array([clock.tick(stamp) for stamp in stamps], dtype=np.float64)
    if clock.bad > max(1, MAX_BAD_SHARE * len(starts)):
        return np.arange(len(starts)) / fps
    return starts


@dataclass(frozen=True)
class Forecast:
    """Which frames a clip may need, while the length of its window is known only between two bounds.

    earliest, latest: bounds of each sampling time, in seconds, increasing.
    """

    earliest: list[float]
    latest: list[float]

    @classmethod
    def over(cls, frames: int, shortest: float, longest: float) -> Forecast:
        """For `frames` samples of a window between `shortest` and `longest` seconds."""
        return cls(sample_times(frames, max(0.0, shortest)).tolist(), sample_times(frames, longest).tolist())

    def shows(self, start: float, end: float) -> bool:
        """Whether a frame on display from `start` to `end` may be on display at a sampling time."""
        first = bisect.bisect_left(self.latest, start - _TICK)
        return first < len(self.latest) and self.earliest[first] < end + _TICK

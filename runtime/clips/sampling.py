"""Which frames of a video a clip is made of: sampling by timestamp, not by index."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hardroute.runtime.errors import ClipError

MAX_CLIPS = 64  # of one video: they are held in memory together
DEFAULT_FPS = 25.0
# Seconds. Later stamps are nonsense, and too coarse as numbers to count from.
_LONGEST = 1e11
# Seconds that a container may say that the last frame of a video stays on display.
LONGEST_FRAME = 10.0
_EPSILON = 1e-6
# What containers' clocks lose by rounding, in seconds (Matroska keeps whole milliseconds).
_TICK = 1e-3


def sample_times(frames: int, window: float) -> np.ndarray:
    """The centres of `frames` equal parts of [0, window], in seconds, (frames,) float64.

    >>> sample_times(4, 2.0).tolist()
    [0.25, 0.75, 1.25, 1.75]
    """
    return (np.arange(frames) + 0.5) * (window / frames)


@dataclass(frozen=True)
class Spread:
    """Where the clips of a video lie: `count` windows of `seconds`, spread evenly from its start to its end.

    One clip is the first window; without `seconds` it is the whole video. The windows of a video that is no longer than
    one of them all begin at its start.

    Raises:
        ClipError: several clips of a whole video, or too many.

    >>> Spread(2.0, 3).starts(6.0).tolist()
    [0.0, 2.0, 4.0]
    """

    seconds: float | None = None
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_CLIPS:
            raise ClipError(f"{self.count} clips of a video: it must be 1 to {MAX_CLIPS}")
        if self.count > 1 and self.seconds is None:
            raise ClipError(
                f"{self.count} clips of a video: the contract takes the whole video as one clip; take one, or train "
                "with --seconds, the length of a clip"
            )

    @property
    def end(self) -> float | None:
        """Seconds of a video that its clips need; None: all of it."""
        return self.seconds if self.count == 1 else None

    def starts(self, duration: float) -> np.ndarray:
        """Where the windows begin in a video of `duration` seconds, (count,) float64, increasing."""
        return np.linspace(0.0, max(0.0, duration - (self.seconds or duration)), self.count)

    def times(self, frames: int, duration: float) -> np.ndarray:
        """The sampling times of `frames` frames in each window, in seconds, (count, frames) float64."""
        return self.starts(duration)[:, None] + sample_times(frames, self.seconds or duration)


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


def usable_fps(stated: float | None) -> float:
    """The frame rate that a container states if a camera could have it, else 25."""
    return stated if stated is not None and math.isfinite(stated) and 0.05 <= stated <= 1000 else DEFAULT_FPS


class Clock:
    """When frames start, in seconds from the first one, told as they come. The one rule for clips and streams.

    A frame without a stamp (NaN), with that of the frame before, or with an earlier one follows that frame by 1/fps.
    If the stamps then go on from the earlier one, the clock has jumped back and that one is the new anchor; if they
    go on from where they were, it was one bad stamp. Starts increase: a frame whose stamp has been passed already
    because frames before it were put off starts right after them.

    Attributes:
        bad: frames without a usable stamp so far.

    >>> clock = Clock(fps=10.0)
    >>> [round(clock.tick(stamp), 1) for stamp in (5.0, 5.1, 0.0, 0.1, 0.2)]
    [0.0, 0.1, 0.2, 0.3, 0.4]
    """

    def __init__(self, fps: float) -> None:
        self.bad = 0
        self._step = 1 / fps
        self._now = -self._step
        # Stamp and start of the frame that others are counted from, and the latest stamp counted from it.
        self._anchor: tuple[float, float] | None = None
        self._latest = 0.0
        self._jumped: tuple[float, float] | None = None

    def tick(self, stamp: float) -> float:
        """The start of the next frame, whose container states `stamp` seconds."""
        after = max(0.0, self._now + self._step)
        if not abs(stamp) < _LONGEST:
            self.bad += 1
        elif self._anchor is None:
            self._anchor, self._latest = (stamp, after), stamp
        elif stamp > self._latest:
            after = self._counted(stamp)
        elif self._jumped and stamp > self._jumped[0]:
            self._anchor = self._jumped
            after = self._counted(stamp)
        else:
            self.bad += 1
            self._jumped = (stamp, after) if stamp < self._latest else None
        self._now = after
        return after

    def _counted(self, stamp: float) -> float:
        assert self._anchor is not None  # noqa: S101 -- for the type checker
        self._latest, self._jumped = stamp, None
        return max(self._anchor[1] + stamp - self._anchor[0], math.nextafter(self._now, math.inf))


@dataclass(frozen=True)
class Forecast:
    """Which frames clips may need, while the length of their video is known only between two bounds.

    earliest, latest: bounds of each sampling time, in seconds, increasing.
    """

    earliest: list[float]
    latest: list[float]

    @classmethod
    def over(cls, frames: int, shortest: float, longest: float, spread: Spread = Spread()) -> Forecast:
        """For clips of `frames` samples each, in a video between `shortest` and `longest` seconds."""
        # Bounds of the i-th time of all clips: sorting each side keeps what the pairs cover together.
        bounds = (spread.times(frames, duration) for duration in (max(0.0, shortest), longest))
        return cls(*(np.sort(times, axis=None).tolist() for times in bounds))

    def shows(self, start: float, end: float) -> bool:
        """Whether a frame on display from `start` to `end` may be on display at a sampling time."""
        first = bisect.bisect_left(self.latest, start - _TICK)
        return first < len(self.latest) and self.earliest[first] < end + _TICK

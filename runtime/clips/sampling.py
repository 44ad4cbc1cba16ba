"""Which frames of a video a clip is made of: sampling by timestamp, not by index."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DEFAULT_FPS = 25.0
# One frame without a timestamp (AVI's last, for one) is mended in place; more than this share means that the
# container's clock cannot be believed at all.
MAX_BAD_SHARE = 0.02
_EPSILON = 1e-6


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


def usable_fps(stated: float, stamps: Sequence[float] = ()) -> float:
    """The header's frame rate if a camera could have it, else that of the timestamps, else 25."""
    if math.isfinite(stated) and 0.05 <= stated <= 1000:
        return stated
    steps = np.diff(stamps)
    steps = steps[steps > 0]
    return float(1 / np.median(steps)) if len(steps) else DEFAULT_FPS


def clean_stamps(stamps: Sequence[float], fps: float) -> np.ndarray:
    """Timestamps that start at 0 and increase, in seconds.

    Single frames without a usable stamp follow the one before by 1/fps; where more are unusable, the
    container's clock is given up and frame i starts at i/fps.
    """
    raw = np.asarray(stamps, dtype=np.float64)
    mended = np.empty(len(raw))
    bad, clock = 0, -math.inf
    for i, stamp in enumerate(raw):
        usable = math.isfinite(stamp) and stamp > clock
        bad += not usable
        clock = stamp if usable else (clock + 1 / fps if i else 0.0)
        mended[i] = clock
    if bad > max(1, MAX_BAD_SHARE * len(raw)):
        return np.arange(len(raw)) / fps
    return mended - mended[0]

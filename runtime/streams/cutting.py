"""A run of frames becomes windows, with word of what else there was: frames that were lost, a clock that jumped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from hardroute.runtime.clips import ClipContract, Limits
from hardroute.runtime.clips.frames import Shown
from hardroute.runtime.clips.sampling import Clock
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams.pace import RateLimit
from hardroute.runtime.streams.settings import MAX_HOLD
from hardroute.runtime.streams.windows import Cut, Windows

Image = np.ndarray | Shown
# So many frames in a row that cannot be converted are no accident any more.
MAX_CORRUPT_RUN = 100


@dataclass(frozen=True)
class Manner:
    """How a video is cut: `StreamSettings` and contract come to this.

    Attributes:
        name: for messages. seconds, stride: of a window. live: the rest of it is no clip.
    """

    name: str
    contract: ClipContract
    limits: Limits
    seconds: float
    stride: float
    live: bool


@dataclass(eq=False)
class Step:
    """What came since the step before.

    Attributes:
        frames: that were read. corrupt: of these and of what was lost, could not be shown.
        jumps: of the clock; windows begin anew after one.
        cut: a window that is complete, or None. milliseconds: what reading it cost, where that was measured elsewhere.
    """

    frames: int = 0
    corrupt: int = 0
    jumps: int = 0
    cut: Cut | None = None
    milliseconds: float | None = None


def cut_windows(
    frames: Iterable[tuple[float, Image | None]], fps: float, manner: Manner, every: float = 0.0
) -> Iterator[Step]:
    """The windows of one video, as they are complete.

    Args:
        frames: when each starts, in seconds from any origin, and itself: (h, w, 3) uint8 RGB or yet to be converted;
            None: it cannot be.
        fps: where a stamp is of no use.
        every: seconds between steps without a window, at least.

    Raises:
        ClipError: too many frames in a second, or too many in a row that cannot be converted.
    """
    rate = RateLimit(manner.name, manner.seconds, manner.limits.max_frames)
    clock, windows = _begin(fps, manner)
    step, start, run, said = Step(), 0.0, 0, -every
    for stamp, frame in frames:
        before, start = start, clock.tick(stamp)
        if start - before > max(MAX_HOLD, manner.seconds):
            for cut in windows.finish(before + 1 / fps, short=False):
                yield _with(step, cut)
                step = Step()
            clock, windows = _begin(fps, manner)
            start = clock.tick(stamp)
            step.jumps += 1
        rate.check(start)
        for cut in windows.advance(start):
            yield _with(step, cut)
            step = Step()
        if frame is not None:
            windows.hold(frame)
        run = 0 if frame is not None else run + 1
        step.frames, step.corrupt = step.frames + 1, step.corrupt + (frame is None)
        if run >= MAX_CORRUPT_RUN:
            yield step
            raise ClipError(f"{manner.name}: {run} frames in a row cannot be converted")
        if (now := time.monotonic()) - said >= every or step.jumps:
            said = now
            yield step
            step = Step()
    # A short file is a clip, as it is for `decode`; the rest of a connection that broke is not.
    for cut in windows.finish(start + 1 / fps, short=not manner.live):
        yield _with(step, cut)
        step = Step()
    yield step


def _begin(fps: float, manner: Manner) -> tuple[Clock, Windows]:
    return Clock(fps), Windows(manner.contract, manner.seconds, manner.stride)


def _with(step: Step, cut: Cut) -> Step:
    step.cut = cut
    return step

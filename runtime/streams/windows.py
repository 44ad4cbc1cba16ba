"""Cuts a run of frames into windows, each sampled as `decode` samples a video."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from hardroute.runtime.clips import ClipContract
from hardroute.runtime.clips.frames import Shown
from hardroute.runtime.clips.preprocess import fit_frame
from hardroute.runtime.clips.sampling import sample_times, shown_before

# Of a window in which the video ends. A shorter rest tells the network too little.
MIN_COVERED = 0.5


@dataclass(eq=False)
class Cut:
    """A window of one video: `number` from 0, start and end in seconds, frames (T, H, W, 3) uint8 RGB."""

    number: int
    start: float
    end: float
    frames: np.ndarray


@dataclass(eq=False)
class _Open:
    number: int
    times: list[float]
    shown: list[np.ndarray] = field(default_factory=list)


class Windows:
    """Takes frames as they come and gives windows as they are complete, in order.

    Window k spans `seconds` from k * `stride` on. Its clip holds the frames on display at its sampling times, which
    lie in it as `decode` lays them in a video of that length. So window 0 of a file is what `decode` makes of it
    under a contract of so many seconds.

    Only the frame on display is held in full size, and frames of the contract's size for the windows that are open.
    A frame that no window shows is neither converted nor resized.

    >>> windows = Windows(ClipContract(frames=2, height=8, width=8), seconds=1.0, stride=1.0)
    >>> for start in (0.0, 0.5, 1.0):
    ...     done = list(windows.advance(start))
    ...     windows.hold(np.zeros((8, 8, 3), np.uint8))
    >>> done[0].frames.shape
    (2, 8, 8, 3)
    """

    def __init__(self, contract: ClipContract, seconds: float, stride: float) -> None:
        self._contract, self._seconds, self._stride = contract, seconds, stride
        self._times = sample_times(contract.frames, seconds)
        self._next = 0
        self._open: deque[_Open] = deque()
        self._image: np.ndarray | Shown | None = None
        self._fitted: np.ndarray | None = None

    @property
    def frames_held(self) -> int:
        """Different frames of the contract's size that are kept now."""
        return len({id(frame) for window in self._open for frame in window.shown})

    def advance(self, start: float) -> Iterator[Cut]:
        """Another frame starts at `start` seconds, later than the one before; so it is known how long that was shown.

        To be called, and exhausted, before that other frame is given to `hold`.
        """
        if self._image is None:
            return  # nothing has been shown yet; the first frame will stand for this time too
        while shown_before(self._starts(self._next) + self._times[0], start):
            self._begin()
            # The oldest goes out before others come in: a long-held frame fills many windows.
            yield from self._fill(start)
        yield from self._fill(start)

    def hold(self, frame: np.ndarray | Shown) -> None:
        """The frame that is on display now, (h, w, 3) uint8 RGB or yet to be converted.

        It may change after the next `advance`, which raises ClipError if it is to be shown and cannot be converted.
        """
        self._image, self._fitted = frame, None

    def finish(self, duration: float, short: bool) -> Iterator[Cut]:
        """The video ends after `duration` seconds; the last frame stays on display, as in `decode`.

        Gives the windows of which at least `MIN_COVERED` has been played; the first one in any case if `short`.
        """
        if self._image is None:
            return
        while self._counts(self._next, duration, short):
            self._begin()
        for window in self._open:
            if self._counts(window.number, duration, short):
                window.shown += [self._shown()] * (len(window.times) - len(window.shown))
                yield self._cut(window)

    def _counts(self, number: int, duration: float, short: bool) -> bool:
        return (short and number == 0) or duration - self._starts(number) >= MIN_COVERED * self._seconds

    def _starts(self, number: int) -> float:
        return number * self._stride

    def _begin(self) -> None:
        self._open.append(_Open(self._next, (self._starts(self._next) + self._times).tolist()))
        self._next += 1

    def _fill(self, until: float) -> Iterator[Cut]:
        for window in self._open:
            times, shown = window.times, window.shown
            while len(shown) < len(times) and shown_before(times[len(shown)], until):
                shown.append(self._shown())
        while self._open and len(self._open[0].shown) == len(self._open[0].times):
            yield self._cut(self._open.popleft())

    def _shown(self) -> np.ndarray:
        if self._fitted is None:
            assert self._image is not None  # noqa: S101 -- a bug here must not become a black frame
            held = self._image
            image, aspect = (held, 1.0) if isinstance(held, np.ndarray) else (held.rgb(), held.aspect)
            # A copy in any case: whoever gave the frame may change it.
            fitted = fit_frame(image, self._contract, aspect)
            self._fitted = fitted.copy() if fitted is image else fitted
        return self._fitted

    def _cut(self, window: _Open) -> Cut:
        start = self._starts(window.number)
        return Cut(window.number, start, start + self._seconds, np.stack(window.shown))

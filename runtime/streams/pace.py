"""How fast a source may give frames, what reading it costs, and how soon it is tried again."""

from __future__ import annotations

import random
import time

from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams.settings import MAX_FPS, Reconnect


class RateLimit:
    """Bounds the frames of a window, since a small file can hold millions in a second.

    Args:
        name: for the message.
        seconds: of a window.
        max_frames: in it; fewer where no camera could give so many.
    """

    def __init__(self, name: str, seconds: float, max_frames: int) -> None:
        self._name, self._seconds = name, seconds
        self._most = min(max_frames, round(max(1.0, MAX_FPS * seconds)) + 1)
        self._window, self._frames = 0, 0

    def check(self, start: float) -> None:
        """Another frame starts at `start` seconds. Raises ClipError if it is one too many."""
        window = int(start / self._seconds)
        self._frames = self._frames + 1 if window == self._window else 1
        self._window = window
        if self._frames > self._most:
            raise ClipError(
                f"{self._name}: more than {self._most:,} frames in {self._seconds:g} seconds; reduce its frame rate"
            )


class Pauses:
    """How long to wait before each try to come back; see `Reconnect`."""

    def __init__(self, reconnect: Reconnect) -> None:
        self._reconnect = reconnect
        self._tries = 0
        self._random = random.Random()  # noqa: S311 -- spreads load, hides nothing

    def next(self, came_back: bool) -> float | None:
        """Seconds to wait; None: give up. `came_back`: the last try gave a frame, so the count starts anew."""
        self._tries = 1 if came_back else self._tries + 1
        if self._reconnect.attempts is not None and self._tries > self._reconnect.attempts:
            return None
        # The exponent's bound keeps it a number; 2**30 pauses are beyond any `longest`.
        pause = min(self._reconnect.longest, self._reconnect.first * 2.0 ** min(self._tries - 1, 30))
        return pause * self._random.uniform(0.5, 1.0)


class Stopwatch:
    """Adds up the time spent in `with` blocks."""

    def __init__(self) -> None:
        self._spent, self._began = 0.0, 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._spent += time.perf_counter() - self._began

    def lap(self) -> float:
        """Milliseconds since the last lap."""
        spent, self._spent = self._spent * 1000, 0.0
        return spent

"""The thread that reads a source, cuts its windows, and comes back to a live source that was lost."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hardroute.runtime.clips import ClipContract
from hardroute.runtime.clips.sampling import Clock
from hardroute.runtime.errors import ClipError, HardrouteError
from hardroute.runtime.streams.events import Kind
from hardroute.runtime.streams.open_video import Take
from hardroute.runtime.streams.pace import Pauses, RateLimit, Stopwatch
from hardroute.runtime.streams.settings import MAX_HOLD, StreamSettings
from hardroute.runtime.streams.source import Source
from hardroute.runtime.streams.windows import Cut, Windows

# So many frames in a row that cannot be converted are no accident any more.
MAX_CORRUPT_RUN = 100


@dataclass(eq=False)
class Window:
    """A window on its way to an answer.

    index: in its source. video, start, end: see `StreamEvent`. frames: (T, H, W, 3) uint8 RGB. clip, sha256: of the
    file. decode_ms: what reading it cost since the window before; time spent waiting for a live source does not count.
    """

    index: int
    video: int
    start: float
    end: float
    frames: np.ndarray
    clip: str
    sha256: str
    decode_ms: float


class Sink(Protocol):
    """What takes a reader's windows and news, in order, and holds the reader up if need be."""

    def put(self, window: Window) -> None: ...

    def note(self, kind: Kind, error: str | None = None, video: int = 0) -> None: ...

    def count(self, **more: int) -> None: ...


class Reader:
    """Reads `source` to its end, or until `stop`, and hands everything to `sink`; an "end" comes last."""

    def __init__(self, source: Source, contract: ClipContract, settings: StreamSettings, sink: Sink) -> None:
        self._source, self._contract, self._settings = source, contract, settings
        self._sink, self._stop = sink, threading.Event()
        self._take: Take | None = None
        self._seconds, self._stride = settings.window(contract)
        self._index = 0
        self._video = -1
        self._frames = 0  # of the take
        self._lost = False
        self._busy = Stopwatch()

    def run(self) -> None:
        """To be called once, in a thread of its own. Raises nothing."""
        error: str | None = None
        try:
            error = self._read_all()
        except Exception as failure:  # a source may be anybody's code; it must not take the others with it
            self._sink.count(unusable=1)
            text = f"{self._source.name}: the source failed with {type(failure).__name__}: {failure}"
            error = str(HardrouteError(text))
        finally:
            self._sink.note("end", error, max(0, self._video))

    def stop(self) -> None:
        """Ends the reading, as soon as the source lets it; from any thread."""
        self._stop.set()
        if take := self._take:
            take.cancel()

    def _read_all(self) -> str | None:
        again = self._source.live or self._settings.loop
        pauses = Pauses(self._settings.reconnect)
        for opening in _stoppable(self._source, self._stop):
            self._video += 1
            failure = self._attempt(opening)
            if failure is None or self._stop.is_set():
                continue
            self._sink.count(unusable=1)
            if not self._source.live:
                self._sink.note("clip", failure, self._video)
            elif not self._lost:
                self._sink.note("source-lost", failure, self._video)
                self._lost = True
            if again:
                pause = pauses.next(came_back=self._frames > 0)
                if pause is None:
                    return f"{failure}; given up after {self._settings.reconnect.attempts} tries in a row"
                self._stop.wait(pause)
        return None

    def _attempt(self, opening: contextlib.AbstractContextManager[Take]) -> str | None:
        """Reads one video. What went wrong, or None; for a live source its end is wrong."""
        self._frames = 0
        try:
            with opening as self._take:
                # Stopped while it was being opened, when there was nothing yet to cancel.
                if not self._stop.is_set():
                    self._read(self._take)
        except ClipError as error:
            return str(error)
        finally:
            self._take = None
        if not self._frames:
            return f"{self._source.name}: not one frame could be decoded"
        return f"{self._source.name}: the source ended" if self._source.live else None

    def _read(self, take: Take) -> None:
        rate = RateLimit(self._source.name, self._seconds, self._settings.limits.max_frames)
        clock, windows = self._begin(take)
        start, corrupt_run = 0.0, 0
        while not self._stop.is_set() and (stamp := self._grab(take)) is not None:
            before, start = start, clock.tick(stamp)
            if start - before > max(MAX_HOLD, self._seconds):
                self._put(take, windows.finish(before + 1 / take.fps, short=False))
                clock, windows = self._begin(take)
                start = clock.tick(stamp)
                self._video += 1
                self._sink.count(jumps=1)
            rate.check(start)
            self._put(take, windows.advance(start))
            with self._busy:
                if (frame := take.retrieve()) is not None:
                    windows.hold(frame)
            corrupt_run = 0 if frame is not None else corrupt_run + 1
            self._sink.count(frames=1, corrupt=int(frame is None))
            if corrupt_run >= MAX_CORRUPT_RUN:
                raise ClipError(f"{self._source.name}: {corrupt_run} frames in a row cannot be converted")
        # A short file is a clip, as it is for `decode`; the rest of a connection that broke is not.
        self._put(take, windows.finish(start + 1 / take.fps, short=not self._source.live))

    def _begin(self, take: Take) -> tuple[Clock, Windows]:
        return Clock(take.fps), Windows(self._contract, self._seconds, self._stride)

    def _grab(self, take: Take) -> float | None:
        if not self._source.live:
            with self._busy:
                stamp = take.grab()
        else:
            began = time.monotonic()
            stamp = take.grab()
            # OpenCV tells a time limit from an end by nothing else.
            if stamp is None and time.monotonic() - began > 0.9 * self._settings.timeout:
                raise ClipError(f"{self._source.name}: no frame for {self._settings.timeout:g} seconds")
        if stamp is not None:
            self._frames += 1
            if self._lost:
                self._lost = False
                self._sink.count(reconnects=1)
                self._sink.note("source-back", None, self._video)
        return stamp

    def _put(self, take: Take, cuts: Iterator[Cut]) -> None:
        while not self._stop.is_set():
            with self._busy:
                cut = next(cuts, None)
            if cut is None:
                return
            window = Window(
                index=self._index,
                video=self._video,
                start=cut.start,
                end=cut.end,
                frames=cut.frames,
                clip=take.clip,
                sha256=take.sha256,
                decode_ms=self._busy.lap(),
            )
            self._index += 1
            self._sink.put(window)


def _stoppable(source: Source, stop: threading.Event) -> Iterator[contextlib.AbstractContextManager[Take]]:
    for opening in source.takes():
        if stop.is_set():
            return
        yield opening

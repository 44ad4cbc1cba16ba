"""The thread that reads a source, cuts its windows, and comes back to a live source that was lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hardroute.runtime.clips import ClipContract
from hardroute.runtime.errors import ClipError, HardrouteError
from hardroute.runtime.streams.cutting import Manner, Step, cut_windows
from hardroute.runtime.streams.events import Kind
from hardroute.runtime.streams.open_video import Take, WindowTake
from hardroute.runtime.streams.pace import Pauses, Stopwatch
from hardroute.runtime.streams.settings import StreamSettings
from hardroute.runtime.streams.source import Source


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
        self._take: Take | WindowTake | None = None
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

    def _attempt(self, opening: contextlib.AbstractContextManager[Take | WindowTake]) -> str | None:
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

    def _read(self, take: Take | WindowTake) -> None:
        manner = Manner(
            name=self._source.name,
            contract=self._contract,
            limits=self._settings.limits,
            seconds=self._seconds,
            stride=self._stride,
            live=self._source.live,
        )
        steps = take.steps(manner) if isinstance(take, WindowTake) else self._cut_here(take, manner)
        while not self._stop.is_set():
            # Waiting for a live source is no work.
            with contextlib.nullcontext() if self._source.live else self._busy:
                step = next(steps, None)
            if step is None:
                return
            self._heard(take, step)

    def _cut_here(self, take: Take, manner: Manner) -> Iterator[Step]:
        def frames() -> Iterator[tuple[float, np.ndarray | None]]:
            while not self._stop.is_set() and (stamp := take.grab()) is not None:
                yield stamp, take.retrieve()

        yield from cut_windows(frames(), take.fps, manner)

    def _heard(self, take: Take | WindowTake, step: Step) -> None:
        self._frames += step.frames
        self._video += step.jumps
        counts = {"frames": step.frames, "corrupt": step.corrupt, "jumps": step.jumps}
        if some := {name: count for name, count in counts.items() if count}:
            self._sink.count(**some)
        if self._lost and step.frames:
            self._lost = False
            self._sink.count(reconnects=1)
            self._sink.note("source-back", None, self._video)
        if (cut := step.cut) is not None and not self._stop.is_set():
            spent = self._busy.lap()
            window = Window(
                index=self._index,
                video=self._video,
                start=cut.start,
                end=cut.end,
                frames=cut.frames,
                clip=take.clip,
                sha256=take.sha256,
                decode_ms=spent if step.milliseconds is None else step.milliseconds,
            )
            self._index += 1
            self._sink.put(window)


def _stoppable(source: Source, stop: threading.Event) -> Iterator[contextlib.AbstractContextManager[Take | WindowTake]]:
    for opening in source.takes():
        if stop.is_set():
            return
        yield opening

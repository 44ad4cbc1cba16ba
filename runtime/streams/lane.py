"""Between a source's reader and its listeners: windows wait, are answered with others', and go out in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

from runtime.batcher import MicroBatcher
from runtime.errors import HardrouteError
from runtime.prediction import Prediction
from runtime.streams.events import Kind, StreamCounts, StreamEvent
from runtime.streams.reader import Window
from runtime.streams.settings import Policy

# Lets an event go, and says as what it went: an answer that cannot be logged goes as an error.
Release = Callable[[StreamEvent], StreamEvent]


@dataclass(eq=False)
class _Flight:
    """Something that has left the queue: a window with its answer to come, or news."""

    event: StreamEvent
    window: Window | None = None
    answer: Future[Prediction] | None = None
    error: str | None = None

    @property
    def landed(self) -> bool:
        return self.answer is None or self.answer.done()


class Lane:
    """One source's windows, bounded by `depth` that wait and `ahead` that are being answered.

    Args:
        source: its name.
        batcher: answers.
        policy, depth, ahead: see `StreamSettings`.
        release: called with each event, in order and in the lane's own thread; gives it back as it went out.
    """

    def __init__(
        self, source: str, batcher: MicroBatcher, policy: Policy, depth: int, ahead: int, release: Release
    ) -> None:
        self._source, self._batcher, self._release = source, batcher, release
        self._policy, self._depth, self._ahead = policy, depth, ahead
        self._turn = threading.Condition()
        self._waiting: deque[Window | StreamEvent] = deque()
        self._flying: deque[_Flight] = deque()
        self._counts = StreamCounts()
        self._told = StreamCounts()
        self._closed = False

    @property
    def counts(self) -> StreamCounts:
        """The counts at this moment."""
        return self._counts

    def put(self, window: Window) -> None:
        """Takes a window from the reader; where there is no room, the policy says what happens."""
        with self._turn:
            self._count(windows=1)
            if self._policy == "block":
                self._turn.wait_for(self._room)
            elif not self._room():
                self._drop_oldest()
            if self._closed:
                self._count(dropped=1)
                return
            self._waiting.append(window)
            self._turn.notify_all()

    def note(self, kind: Kind, error: str | None = None, video: int = 0) -> None:
        """Takes news from the reader; they wait for room and are never dropped while the lane is open."""
        with self._turn:
            self._turn.wait_for(self._room)
            self._waiting.append(StreamEvent(self._source, kind, video=video, error=error))
            self._turn.notify_all()

    def count(self, **more: int) -> None:
        """Adds to the counts."""
        with self._turn:
            self._count(**more)

    def close(self) -> None:
        """Gives up what waits, as dropped; what is being answered still goes out."""
        with self._turn:
            self._closed = True
            self._count(dropped=sum(isinstance(item, Window) for item in self._waiting))
            self._waiting = deque(item for item in self._waiting if not isinstance(item, Window))
            self._turn.notify_all()

    def run(self) -> None:
        """Answers until the reader's "end" has gone out. To be called once, in a thread of its own."""
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._can_land() or self._can_start())
                flight = self._flying.popleft() if self._can_land() else None
                item = None if flight else self._waiting.popleft()
                self._turn.notify_all()
            if item is not None:
                self._start(item)
            elif flight is not None:
                self._land(flight)
                if flight.event.kind == "end":
                    return

    def _can_land(self) -> bool:
        return bool(self._flying) and self._flying[0].landed

    def _can_start(self) -> bool:
        return bool(self._waiting) and len(self._flying) < self._ahead

    def _room(self) -> bool:
        return self._closed or len(self._waiting) < self._depth

    def _drop_oldest(self) -> None:
        for place, item in enumerate(self._waiting):
            if isinstance(item, Window):
                del self._waiting[place]
                self._count(dropped=1)
                return
        self._turn.wait_for(self._room)  # nothing but news, which come seldom

    def _start(self, item: Window | StreamEvent) -> None:
        if isinstance(item, StreamEvent):
            flight = _Flight(item)
        else:
            event = StreamEvent(
                self._source, "window", index=item.index, video=item.video, start=item.start, end=item.end
            )
            flight = _Flight(event, item)
            try:
                flight.answer = self._batcher.submit(item.frames)
            except HardrouteError as error:
                flight.error = str(error)
        with self._turn:
            self._flying.append(flight)
        if flight.answer:
            flight.answer.add_done_callback(self._wake)

    def _wake(self, _: Future[Prediction]) -> None:
        with self._turn:
            self._turn.notify_all()

    def _land(self, flight: _Flight) -> None:
        event = flight.event
        if flight.answer and flight.window:
            try:
                event = replace(event, prediction=_named(flight.answer.result(), flight.window))
            except Exception as error:  # whatever it was, it is this window's
                event = replace(event, error=str(HardrouteError(error)) or type(error).__name__)
        elif flight.error:
            event = replace(event, error=flight.error)
        with self._turn:
            now, told = self._counts, self._told
            self._told = now
        event = self._release(replace(event, dropped=now.dropped - told.dropped, corrupt=now.corrupt - told.corrupt))
        if event.kind == "window":
            answered = event.prediction is not None
            self.count(answered=int(answered), abstained=int(event.abstained), failed=int(not answered))

    def _count(self, **more: int) -> None:
        # Replaced as a whole, so that a reader without the lock never sees half of a change.
        self._counts = replace(
            self._counts, **{name: getattr(self._counts, name) + count for name, count in more.items()}
        )


def _named(prediction: Prediction, window: Window) -> Prediction:
    timing = replace(prediction.milliseconds, decode=window.decode_ms)
    return replace(prediction, clip=window.clip, clip_sha256=window.sha256, milliseconds=timing)

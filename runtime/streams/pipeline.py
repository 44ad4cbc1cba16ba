"""Between a source's reader and its listeners: windows wait, are answered with others', and go out in order."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hardroute.runtime.delivery import Delivery, Pending
from hardroute.runtime.errors import HardrouteError, reason
from hardroute.runtime.inference import MicroBatcher
from hardroute.runtime.prediction import Prediction
from hardroute.runtime.routelog import Window as LoggedWindow
from hardroute.runtime.streams.events import Kind, StreamCounts, StreamEvent
from hardroute.runtime.streams.reader import Window
from hardroute.runtime.streams.settings import Policy

_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Flight:
    """Something that has left the queue: news, or a window with its answer to come, and then its line in the log."""

    event: StreamEvent
    window: Window | None = None
    answer: Future[Prediction] | None = None
    pending: Pending[Prediction] | None = None

    @property
    def answered(self) -> bool:
        return self.answer is None or self.answer.done()

    @property
    def written(self) -> bool:
        return self.pending is None or self.pending.done()


class Lane:
    """One source's windows, bounded by `depth` that wait and `ahead` that are being answered and logged.

    Args:
        source: its name.
        batcher: answers.
        policy, depth, ahead: see `StreamSettings`.
        delivery: lets answers out, in two steps, so that nobody has to wait for a disk in between. Lanes share it.
        listener: called with each event, in order and in the lane's own thread. If it raises, that is logged by
            `logging` and goes no further.
    """

    def __init__(
        self,
        source: str,
        batcher: MicroBatcher,
        policy: Policy,
        depth: int,
        ahead: int,
        delivery: Delivery,
        listener: Callable[[StreamEvent], object],
    ) -> None:
        self._source, self._batcher, self._delivery, self._listener = source, batcher, delivery, listener
        self._policy, self._depth, self._ahead = policy, depth, ahead
        self._turn = threading.Condition()
        self._waiting: deque[Window | StreamEvent] = deque()
        self._flying: deque[_Flight] = deque()  # to be answered
        self._landing: deque[_Flight] = deque()  # to be logged
        self._counts = StreamCounts()
        self._told = StreamCounts()
        self._closed = self._over = False

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
        while not self._over:
            with self._turn:
                while (step := self._next()) is None:
                    self._turn.wait()
                self._turn.notify_all()
            step()

    def _next(self) -> Callable[[], None] | None:
        # What is nearest to its end first, so that `ahead` bounds all that is under way.
        if self._landing and self._landing[0].written:
            return partial(self._tell, self._landing.popleft())
        if self._flying and self._flying[0].answered:
            return partial(self._write, self._flying.popleft())
        if self._waiting and len(self._flying) + len(self._landing) < self._ahead:
            return partial(self._start, self._waiting.popleft())
        return None

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
            flight = _Flight(StreamEvent(self._source, "window", item.index, item.video, item.start, item.end), item)
            try:
                flight.answer = self._batcher.submit(item.frames)
            except HardrouteError as error:
                flight.event = replace(flight.event, error=str(error))
        self._flying.append(flight)
        if flight.answer:
            flight.answer.add_done_callback(self._wake)

    def _write(self, flight: _Flight) -> None:
        event = flight.event
        if flight.answer and flight.window:
            try:
                event = replace(event, prediction=_named(flight.answer.result(), flight.window))
            except Exception as error:  # whatever it was, it is this window's
                if not isinstance(error, HardrouteError):
                    _logger.exception("window %s of stream %s failed", event.index, self._source)
                event = replace(event, error=reason(error))
        now, told = self._counts, self._told
        self._told = now
        event = replace(event, dropped=now.dropped - told.dropped, corrupt=now.corrupt - told.corrupt)
        pending = self._hand_in(event)
        self._landing.append(_Flight(event, pending=pending))
        pending.add_done_callback(self._wake)

    def _hand_in(self, event: StreamEvent) -> Pending[Prediction]:
        window: LoggedWindow | None = None
        if event.index is not None:
            window = {"index": event.index, "start": event.start, "end": event.end}
        if event.prediction:
            return self._delivery.answer(event.prediction, stream=self._source, window=window, dropped=event.dropped)
        word: str | None = "error" if event.kind in ("window", "end") else event.kind
        if event.kind == "end" and not event.error:
            word = None
        return self._delivery.event(word, event.error, stream=self._source, window=window, dropped=event.dropped)

    def _tell(self, flight: _Flight) -> None:
        event = flight.event
        if flight.pending:
            found = flight.pending.result()
            event = replace(
                event,
                prediction=found.answer,
                abstained=found.abstained,
                alarms=found.alarms,
                records=found.records,
                receipts=found.receipts,
                error=found.error,
            )
        try:
            self._listener(event)
        except Exception:
            _logger.exception("the listener of stream %s failed on window %s", self._source, event.index)
        if event.kind == "window":
            answered = event.prediction is not None
            self.count(answered=int(answered), abstained=int(event.abstained), failed=int(not answered))
        self._over = event.kind == "end"

    def _wake(self, _: Future[Any]) -> None:
        with self._turn:
            self._turn.notify_all()

    def _count(self, **more: int) -> None:
        # Replaced as a whole, so that a reader without the lock never sees half of a change.
        self._counts = replace(
            self._counts, **{name: getattr(self._counts, name) + count for name, count in more.items()}
        )


def _named(prediction: Prediction, window: Window) -> Prediction:
    timing = replace(prediction.milliseconds, decode=window.decode_ms)
    return replace(prediction, clip=window.clip, clip_sha256=window.sha256, milliseconds=timing)

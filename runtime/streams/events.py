"""What a stream tells: an answer for every window, and what happened to the source; and its way to who iterates."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

from hardroute.runtime.prediction import Prediction
from hardroute.runtime.routelog import Receipt, Record

Kind = Literal["window", "clip", "source-lost", "source-back", "end"]


@dataclass(frozen=True, eq=False)
class StreamEvent:
    """One thing that happened to a source, in its order.

    Attributes:
        source: its name; a URL without user, password and query.
        kind: "window": it was answered, or `error` says why not. "clip": a file of the source cannot be used, or not
            to its end. "source-lost", "source-back": a live source went away and came back. "end": nothing follows.
        index: the window's number in this source, from 0; numbers that are missing were dropped. None: no window.
        video: which file of a folder, or which connection of a live source, from 0. A jump of the clock counts too.
        start, end: the window, in seconds from the first frame of `video`; end is not part of it.
        prediction: the answer; None where there is none.
        abstained: the answer is withheld, not to be acted upon: the router hesitated too much.
        error: one line for a person; None where nothing went wrong.
        dropped: windows that were given up since the event before, because nobody could take them in time.
        corrupt: frames that could not be converted since the event before.
        alarms: kinds of the alarms that the watch raised on this answer.
        records: its lines, as they stand in the log if there is one.
        receipts: number and hash of each of these lines; none where there is no log.
    """

    source: str
    kind: Kind
    index: int | None = None
    video: int = 0
    start: float = 0.0
    end: float = 0.0
    prediction: Prediction | None = None
    abstained: bool = False
    error: str | None = None
    dropped: int = 0
    corrupt: int = 0
    alarms: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()
    receipts: tuple[Receipt, ...] = ()

    @property
    def seq(self) -> int | None:
        """Number of its own line in the log; None where there is none."""
        return self.receipts[-1].seq if self.receipts else None

    @property
    def head(self) -> str | None:
        """SHA-256 of that line, hex."""
        return str(self.receipts[-1]) if self.receipts else None


@dataclass(frozen=True)
class StreamCounts:
    """What became of a source so far.

    Once it has ended, windows = answered + failed + dropped.

    Attributes:
        frames: read. corrupt: of these, could not be converted.
        windows: were cut. answered, failed, dropped: what became of them.
        abstained: of the answers, withheld.
        unusable: files or connections that ended with an error, or could not be opened.
        jumps: of the source's clock, beyond what a frame may stay on display.
        reconnects: of a live source, that gave a frame again.
    """

    frames: int = 0
    corrupt: int = 0
    windows: int = 0
    answered: int = 0
    abstained: int = 0
    failed: int = 0
    dropped: int = 0
    unusable: int = 0
    jumps: int = 0
    reconnects: int = 0


class Channel:
    """Events of the lanes' threads for whoever iterates over them.

    Bounded: whoever puts waits while it is full. Once closed, it takes and gives nothing.

    Args:
        depth: events that may wait to be read.
    """

    def __init__(self, depth: int) -> None:
        self._turn = threading.Condition()
        self._events: deque[StreamEvent] = deque()
        self._depth = depth
        self._closed = False

    def put(self, event: StreamEvent) -> None:
        """Waits for room; after `close` the event is nobody's any more."""
        with self._turn:
            self._turn.wait_for(lambda: self._closed or len(self._events) < self._depth)
            if not self._closed:
                self._events.append(event)
                self._turn.notify_all()

    def get(self) -> StreamEvent | None:
        """Waits for an event; None once closed."""
        with self._turn:
            self._turn.wait_for(lambda: self._closed or self._events)
            if self._closed:
                return None
            event = self._events.popleft()
            self._turn.notify_all()
            return event

    def close(self) -> None:
        """Lets go of everybody who waits."""
        with self._turn:
            self._closed = True
            self._events.clear()
            self._turn.notify_all()

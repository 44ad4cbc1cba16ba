"""Events on their way from the lanes' threads to whoever iterates over them."""

from __future__ import annotations

import threading
from collections import deque

from hardroute.runtime.streams.events import StreamEvent


class Channel:
    """Bounded: whoever puts waits while it is full. Once closed, it takes and gives nothing.

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

"""One source as an iterator of events."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any

from hardroute.runtime.inference.engine import Engine
from hardroute.runtime.streams.events import StreamCounts, StreamEvent
from hardroute.runtime.streams.hub import Hub
from hardroute.runtime.streams.release import Log, Watcher
from hardroute.runtime.streams.settings import StreamSettings


class Stream:
    """Windows of one source with their answers, while later ones are read and computed. Made by `Engine.stream`.

    It begins at once. Iterating ends with the source; leave a `with` block, or call `close`, to end it before.
    """

    def __init__(
        self,
        engine: Engine,
        source: object,
        settings: StreamSettings,
        *,
        log: Log | None = None,
        watch: Watcher | None = None,
        **hub: Any,
    ) -> None:
        self._hub = Hub(engine, log=log, watch=watch, **hub)
        # The hub's threads do not hold this object, so an iterator that is thrown away ends them.
        self._close = weakref.finalize(self, self._hub.close)
        try:
            self._name = self._hub.add(source, settings)
        except BaseException:
            self._close()
            raise
        self._events = iter(self._hub)

    @property
    def counts(self) -> StreamCounts:
        """What became of the source so far."""
        return self._hub.counts[self._name]

    def close(self) -> None:
        """Ends the stream; windows that nobody has seen yet are given up. May take the source's time limit."""
        self._close()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> StreamEvent:
        for event in self._events:
            # A source that simply ended says so by ending the iteration.
            if event.kind != "end" or event.error or event.dropped or event.corrupt:
                return event
        self.close()
        raise StopIteration

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

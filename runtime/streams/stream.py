"""One source as an iterator of events."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any

from hardroute.runtime.delivery import Abstain, Log, Watcher
from hardroute.runtime.inference import Engine
from hardroute.runtime.streams.events import StreamCounts, StreamEvent
from hardroute.runtime.streams.hub import Hub
from hardroute.runtime.streams.settings import StreamSettings


class Stream:
    """Classifies a video without end, window by window, while later windows are read and computed.

    It begins at once. Iterating ends with the source; leave a `with` block, or call `close`, to end it before.

    Args:
        engine: stays the caller's, like `log` and `watch`: close it after the stream.
        source: a file, a folder, a camera's number, an RTSP or HTTP URL, or a `FrameSource` of your own.
        settings: how it is cut, read and held back.
        log: a `RouteLog`; an answer comes out once its line is written.
        watch: a `Watch`; sees each answer.
        abstain: an `Abstain`, or whatever says of an answer whether to withhold it.
        max_batch, max_wait: see `MicroBatcher`.
        fields: of `StreamSettings`, such as `seconds`, `stride` and `policy`; they replace those of `settings`.

    Raises:
        HardrouteError: no such source, or settings that contradict it. What goes wrong later is an event.

    >>> for event in Stream(engine, "rtsp://door/1", seconds=2, stride=1):  # doctest: +SKIP
    ...     print(event.start, event.prediction.label if event.prediction else event.error)
    """

    def __init__(
        self,
        engine: Engine,
        source: object,
        settings: StreamSettings | None = None,
        *,
        log: Log | None = None,
        watch: Watcher | None = None,
        abstain: Abstain | None = None,
        max_batch: int = 8,
        max_wait: float = 0.005,
        **fields: Any,
    ) -> None:
        self._hub = Hub(engine, log=log, watch=watch, abstain=abstain, max_batch=max_batch, max_wait=max_wait)
        # The hub's threads do not hold this object, so an iterator that is thrown away ends them.
        self._close = weakref.finalize(self, self._hub.close)
        try:
            self._name = self._hub.add(source, settings, **fields)
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

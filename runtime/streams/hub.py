"""Many sources, one engine: each source is read and answered in threads of its own, and their clips run together."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from hardroute.runtime.delivery import Abstain, Delivery, Log, Watcher
from hardroute.runtime.errors import StreamError
from hardroute.runtime.inference import Engine, MicroBatcher
from hardroute.runtime.streams.events import Channel, StreamCounts, StreamEvent
from hardroute.runtime.streams.pipeline import Lane
from hardroute.runtime.streams.reader import Reader
from hardroute.runtime.streams.settings import StreamSettings
from hardroute.runtime.streams.source import open_source

_logger = logging.getLogger(__name__)
# Beyond a source's own time limit: for what cannot be hurried, such as the window in the network right now.
_GRACE = 5.0


@dataclass(eq=False)
class _Served:
    lane: Lane
    reader: Reader
    threads: tuple[threading.Thread, threading.Thread]
    timeout: float


class Hub:
    """Serves sources that come and go; one that is broken, slow or silent never harms the others.

    Events of one source come in order; those of different sources in any. An answer is heard of only after its line
    in the log is written, while the next windows are already computed.

    Args:
        engine: stays the caller's, like `log` and `watch`: close it after the hub.
        log: a `RouteLog`; gets a line for each answer and for what else happens, dropped windows too.
        watch: a `Watch`; sees each answer.
        abstain: an `Abstain`, or whatever says of an answer whether to withhold it.
        on_event: called with each `StreamEvent`, in the source's own thread: one that is slow holds up that source
            only. Without it, iterate over the hub.
        batcher: one that others use too; without it the hub makes its own of the next two arguments.
        max_batch, max_wait: see `MicroBatcher`.

    >>> with Hub(engine, on_event=print) as hub:  # doctest: +SKIP
    ...     hub.add("rtsp://door/1", seconds=2, stride=1)
    ...     hub.add("clips/")
    ...     hub.join()
    """

    def __init__(
        self,
        engine: Engine,
        *,
        log: Log | None = None,
        watch: Watcher | None = None,
        abstain: Abstain | None = None,
        on_event: Callable[[StreamEvent], object] | None = None,
        batcher: MicroBatcher | None = None,
        max_batch: int = 8,
        max_wait: float = 0.005,
    ) -> None:
        self._engine = engine
        self._channel = None if on_event else Channel(64)
        self._listener = on_event or self._channel.put  # type: ignore[union-attr]
        self._delivery = Delivery(engine.bundle.digest, log=log, watch=watch, abstain=abstain)
        self._own_batcher = batcher is None
        # What waits is bounded by the lanes, source by source, so that a crowd of others cannot keep one out.
        self._batcher = batcher or MicroBatcher(engine, max_batch, max_wait, max_pending=None)
        self._changed = threading.Condition()
        self._served: dict[str, _Served] = {}
        self._leaving: list[_Served] = []
        self._running = self._unheard = 0
        self._closed, self._pid = False, os.getpid()

    @property
    def batcher(self) -> MicroBatcher:
        """Its `stats` say how large the batches are."""
        return self._batcher

    @property
    def counts(self) -> dict[str, StreamCounts]:
        """What became of each source so far; those that have ended stay until they are removed."""
        with self._changed:
            return {name: served.lane.counts for name, served in self._served.items()}

    def add(
        self, source: object, settings: StreamSettings | None = None, *, name: str | None = None, **options: Any
    ) -> str:
        """Begins to serve a source and gives its name.

        Args:
            source: see `open_source`.
            settings: how it is cut, read and held back.
            options: fields of `StreamSettings` that replace those of `settings`.
            name: for events, counts, log and `remove`; None: the source's own.

        Raises:
            ClipError: there is no such file or folder, or nothing that can be a source.
            SettingsError: the settings make no sense.
            StreamError: they contradict the contract, the name is taken, or the hub is closed.
        """
        settings = (settings or StreamSettings()).changed(**options)
        opened = open_source(source, settings, self._engine.contract)
        name = name or opened.name
        policy = settings.policy or ("drop-oldest" if opened.live else "block")
        lane = Lane(name, self._batcher, policy, settings.depth, settings.ahead, self._delivery, self._listener)
        reader = Reader(opened, self._engine.contract, settings, lane)

        def answer() -> None:
            lane.run()
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

        threads = (
            threading.Thread(target=reader.run, name=f"read {name}", daemon=True),
            threading.Thread(target=answer, name=f"answer {name}", daemon=True),
        )
        with self._changed:
            if self._closed:
                raise StreamError("the hub is closed; make another")
            if name in self._served:
                raise StreamError(f"source {name} is already being served; remove it first, or give it another name")
            self._served[name] = _Served(lane, reader, threads, settings.timeout)
            self._running += 1
            self._unheard += 1
        for thread in threads:
            thread.start()
        return name

    def remove(self, name: str) -> None:
        """Stops serving a source, without waiting: what of it is being answered still goes out, and then its "end".

        Raises:
            StreamError: there is no source of that name.
        """
        with self._changed:
            served = self._served.pop(name, None)
            if served is None:
                known = ", ".join(self._served) or "none"
                raise StreamError(f"no source {name!r} is being served; known: {known}")
            self._leaving = [one for one in self._leaving if one.threads[1].is_alive()] + [served]
        served.reader.stop()
        served.lane.close()

    def join(self, timeout: float | None = None) -> bool:
        """Waits until all sources have ended; whether they have. Live ones do not unless they are given up."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def __iter__(self) -> Iterator[StreamEvent]:
        """The events of all sources, "end" included, until every source that was added has ended, or the hub is closed.

        Raises:
            StreamError: the hub has a listener; it gets them.
        """
        if self._channel is None:
            raise StreamError("the events of this hub go to its on_event; make one without, to iterate over it")
        return self._events(self._channel)

    def close(self) -> None:
        """Ends all sources: windows that wait count as dropped, those that are being answered go to the log.

        Waits for the readers, which may take the longest of their time limits. Who iterates is let go. In a forked
        child nothing happens: threads, readers and lines are the parent's.
        """
        if self._pid != os.getpid():
            return
        with self._changed:
            self._closed = True
            served = [*self._served.values(), *self._leaving]
        if self._channel:
            self._channel.close()
        _stop(served)
        if self._own_batcher:
            self._batcher.close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _events(self, channel: Channel) -> Iterator[StreamEvent]:
        while self._unheard and (event := channel.get()):
            if event.kind == "end":
                with self._changed:
                    self._unheard -= 1
            yield event


def _stop(served: list[_Served]) -> None:
    for one in served:
        one.reader.stop()
        one.lane.close()
    for one in served:
        reader, answerer = one.threads
        # A listener may remove its own source.
        if threading.current_thread() in one.threads:
            continue
        reader.join(one.timeout + _GRACE)
        if reader.is_alive():
            _logger.warning("%s does not come back from its source and is left behind", reader.name)
            one.lane.note("end", "the source does not answer")
        answerer.join()

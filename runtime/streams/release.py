"""The way out of an answer: the watch sees it, the log has its line, and only then it is heard of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol

from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.prediction import Prediction
from hardroute.runtime.routelog import EventRecord, Record, RouteRecord, Window
from hardroute.runtime.streams.events import StreamEvent

Abstain = Callable[[Prediction], bool]

_logger = logging.getLogger(__name__)
# What someone acts on must have its line.
_NO_LINE = "no answer without its line"


class Log(Protocol):
    """What of `RouteLog` is needed."""

    def submit(self, record: Record) -> Future[Any]: ...


class Watcher(Protocol):
    """What of `Watch` is needed; an alarm has a `kind`."""

    def observe(self, prediction: Prediction, source: str = "") -> Sequence[Any]: ...


class Release:
    """Lets events go, in two steps, so that nobody has to wait for a disk in between. Lanes share it.

    Args:
        bundle_digest: for the log.
        abstain: whether an answer is withheld, such as `hardroute.runtime.watch.Abstain`.
        listener: called with each event. If it raises, that is logged by `logging` and goes no further.
    """

    def __init__(
        self,
        bundle_digest: str,
        log: Log | None,
        watch: Watcher | None,
        abstain: Abstain | None,
        listener: Callable[[StreamEvent], object],
    ) -> None:
        self._digest, self._log, self._watch, self._abstain = bundle_digest, log, watch, abstain
        self._listener = listener

    def write(self, event: StreamEvent) -> tuple[StreamEvent, list[Future[Any]]]:
        """Shows the event to the watch and hands its lines to the log; gives it, and what to wait for.

        Watch, rule and log may be anybody's code. Where one raises, this answer is withheld, and the next one is tried.
        """
        if event.prediction:
            try:
                event = self._judged(event, event.prediction)
            except Exception as error:
                event = _withheld(event, "its watch or its rule for abstaining failed", error)
        event = replace(event, records=tuple(_records(event, self._digest)))
        try:
            return event, [self._log.submit(record) for record in event.records] if self._log else []
        except Exception as error:
            return _withheld(event, _NO_LINE, error), []

    def tell(self, event: StreamEvent, lines: Sequence[Future[Any]]) -> StreamEvent:
        """Lets the event be heard of, and gives it as it went: without its answer if the log did not take a line."""
        try:
            for line in lines:
                line.result()
        except Exception as error:
            event = _withheld(event, _NO_LINE, error)
        try:
            self._listener(event)
        except Exception:
            _logger.exception("the listener of stream %s failed on window %s", event.source, event.index)
        return event

    def _judged(self, event: StreamEvent, prediction: Prediction) -> StreamEvent:
        if self._watch:
            alarms = self._watch.observe(prediction, event.source)
            event = replace(event, alarms=tuple(alarm.kind for alarm in alarms))
        return replace(event, abstained=self._abstain is not None and self._abstain(prediction))


def _withheld(event: StreamEvent, why: str, error: Exception) -> StreamEvent:
    text = str(error) if isinstance(error, HardrouteError) else f"{type(error).__name__}: {error}"
    why = event.error or str(HardrouteError(f"{why}: {text}"))
    return replace(event, prediction=None, abstained=False, error=why, records=())


def _records(event: StreamEvent, bundle_digest: str) -> Iterator[Record]:
    """What a log says about an event: a line for the windows dropped before it, and one for itself."""
    window: Window | None = None
    if event.index is not None:
        window = {"index": event.index, "start": event.start, "end": event.end}
    if event.dropped:
        yield EventRecord.now("dropped", count=event.dropped, stream=event.source, bundle_digest=bundle_digest)
    if event.prediction:
        yield RouteRecord.from_prediction(
            event.prediction,
            bundle_digest,
            stream=event.source,
            window=window,
            abstained=event.abstained or None,
            alarms=event.alarms,
        )
    elif event.kind != "end" or event.error:
        word = "error" if event.kind in ("window", "end") else event.kind
        yield EventRecord.now(word, error=event.error, stream=event.source, window=window, bundle_digest=bundle_digest)

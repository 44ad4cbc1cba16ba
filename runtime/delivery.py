"""No answer without its line, once: the way out of every answer, for command, streams and service.

The watch sees the answer, the rule for abstaining judges it, the routing log has its line, and only then it is let out.
Where watch, rule or log fails, the answer is withheld and the reason given. What failed before there was an answer has
its line too. Watch, rule and log may be anybody's code, so whatever one raises concerns this answer alone.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Protocol, TypeVar

from hardroute.runtime.errors import ClipError, reason
from hardroute.runtime.files import printable
from hardroute.runtime.inference import VideoPrediction
from hardroute.runtime.prediction import Prediction
from hardroute.runtime.routelog import EventRecord, Receipt, Record, RouteRecord, Window

_logger = logging.getLogger(__name__)
_NOT_JUDGED: Final = "its watch or its rule for abstaining failed"
# What someone acts on must have its line.
_NO_LINE: Final = "no answer without its line"

Abstain = Callable[[Prediction], bool]
A = TypeVar("A", bound=Prediction | VideoPrediction)


class Log(Protocol):
    """What of `RouteLog` is needed."""

    def submit(self, record: Record) -> Future[Any]: ...


class Alarming(Protocol):
    """What of `Alarm` is needed."""

    @property
    def kind(self) -> str: ...


class Watcher(Protocol):
    """What of `Watch` is needed."""

    def observe(self, prediction: Prediction, source: str = "") -> Sequence[Alarming]: ...


@dataclass(frozen=True, eq=False)
class Delivered(Generic[A]):
    """What may be let out.

    Attributes:
        answer: None where there is none, or where it is withheld because something failed: then `error` says what.
        abstained: the rule said that the answer is not to be acted upon. Callers do not show its label.
        alarms: kinds of the alarms that the watch raised on it.
        records: its lines, as they stand in the log if there is one; none where the log did not take them.
        receipts: number and hash of each of these lines; none where there is no log, or one of another kind.
        error: one line for a person; None where nothing went wrong.
        log_error: what the log said where it took no line.
    """

    answer: A | None = None
    abstained: bool = False
    alarms: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    error: str | None = None
    log_error: str | None = None


class Pending(Generic[A]):
    """On its way: judged, and its lines handed to the log. Nobody has to wait for a disk before `result`."""

    def __init__(self, delivered: Delivered[A], lines: Sequence[Future[Any]] = ()) -> None:
        self._delivered, self._lines = delivered, lines

    def done(self) -> bool:
        """Whether `result` will not wait."""
        return all(line.done() for line in self._lines)

    def add_done_callback(self, callback: Callable[[Future[Any]], object]) -> None:
        """To be called as each of the lines is written, or is lost; from any thread."""
        for line in self._lines:
            line.add_done_callback(callback)

    def result(self) -> Delivered[A]:
        """Waits for the lines."""
        try:
            heads = [line.result() for line in self._lines]
        except Exception as error:
            return _without_line(self._delivered, error)
        # Anybody's log may give something else.
        receipts = tuple(head for head in heads if isinstance(head, Receipt))
        return replace(self._delivered, receipts=receipts if len(receipts) == len(heads) else ())

    async def wait(self) -> Delivered[A]:
        """`result` for a coroutine. Whoever stops waiting takes no line back that is being written."""
        import asyncio  # dear to load, and streams and commands do without

        lines = [asyncio.wrap_future(line) for line in self._lines]
        # What a line raised is `result`'s to tell.
        await asyncio.shield(asyncio.gather(*lines, return_exceptions=True))
        return self.result()


class Delivery:
    """Lets answers out. Threads may share one; the lines are in the order of the calls.

    Args:
        bundle_digest: for the log.
        log: gets a line for each answer and for all else.
        watch: sees each answer.
        abstain: whether an answer is not to be acted upon, such as `hardroute.runtime.watch.Abstain`.
    """

    def __init__(
        self,
        bundle_digest: str,
        *,
        log: Log | None = None,
        watch: Watcher | None = None,
        abstain: Abstain | None = None,
    ) -> None:
        self._digest, self._log, self._watch, self._abstain = bundle_digest, log, watch, abstain

    def answer(
        self, answer: A, *, stream: str | None = None, window: Window | None = None, dropped: int = 0
    ) -> Pending[A]:
        """Judges an answer and hands its lines to the log.

        Args:
            answer: for a clip; or for a video from several, each of which is watched, judged and has its own line. If
                one is not to be acted upon, then neither is the mean.
            stream: the source that it is from.
            window: which part of that.
            dropped: windows that were given up before it; they get a line before its own.
        """
        clips = answer.clips if isinstance(answer, VideoPrediction) else (answer,)
        alarms: list[list[str]] = []
        try:
            for clip in clips:
                alarms.append(self._alarms(clip, stream or ""))
            abstained = self._abstain is not None and any(self._abstain(clip) for clip in clips)
        except Exception as error:
            _logger.exception("an answer is withheld: %s", _NOT_JUDGED)
            return self.event(
                "error",
                printable(f"{_NOT_JUDGED}: {reason(error)}"),
                clip=clips[0].clip,
                stream=stream,
                window=window,
                dropped=dropped,
                alarms=tuple(itertools.chain(*alarms)),
            )
        if isinstance(answer, VideoPrediction):
            records = [
                replace(record, alarms=raised or None, abstained=abstained or None)
                for record, raised in zip(answer.records(self._digest), alarms, strict=True)
            ]
        else:
            records = [
                RouteRecord.from_prediction(
                    answer,
                    self._digest,
                    stream=stream,
                    window=window,
                    abstained=abstained or None,
                    alarms=alarms[0],
                )
            ]
        kinds = tuple(itertools.chain(*alarms))
        return self._hand_in(Delivered(answer, abstained, kinds), [*self._dropped(dropped, stream), *records])

    def failure(
        self,
        error: Exception,
        *,
        clip: str | None = None,
        stream: str | None = None,
        window: Window | None = None,
        dropped: int = 0,
    ) -> Pending[Any]:
        """Hands in that there is no answer: an event `clip` where the video cannot be used, else `error`."""
        word = "clip" if isinstance(error, ClipError) else "error"
        return self.event(word, reason(error), clip=clip, stream=stream, window=window, dropped=dropped)

    def event(
        self,
        word: str | None,
        error: str | None = None,
        *,
        clip: str | None = None,
        stream: str | None = None,
        window: Window | None = None,
        dropped: int = 0,
        alarms: tuple[str, ...] = (),
    ) -> Pending[Any]:
        """Hands in something else that a reader of the log must know of; `EventRecord` says more of the arguments.

        Args:
            word: what happened; None: nothing that deserves a line, but for what was dropped.
        """
        records = self._dropped(dropped, stream)
        if word is not None:
            records.append(
                EventRecord.now(
                    word,
                    error=error,
                    clip=clip or None,
                    stream=stream,
                    window=window,
                    alarms=alarms,
                    bundle_digest=self._digest,
                )
            )
        return self._hand_in(Delivered(alarms=alarms, error=error), records)

    def _alarms(self, clip: Prediction, source: str) -> list[str]:
        return [alarm.kind for alarm in self._watch.observe(clip, source)] if self._watch else []

    def _dropped(self, count: int, stream: str | None) -> list[Record]:
        return [EventRecord.now("dropped", count=count, stream=stream, bundle_digest=self._digest)] if count else []

    def _hand_in(self, delivered: Delivered[A], records: Sequence[Record]) -> Pending[A]:
        delivered = replace(delivered, records=tuple(records))
        try:
            return Pending(delivered, [self._log.submit(record) for record in records] if self._log else [])
        except Exception as error:
            return Pending(_without_line(delivered, error))


def _without_line(delivered: Delivered[A], error: Exception) -> Delivered[A]:
    said = reason(error)
    _logger.error("%s: %s", _NO_LINE, said)
    why = delivered.error or printable(f"{_NO_LINE}: {said}")
    return replace(delivered, answer=None, abstained=False, records=(), error=why, log_error=said)

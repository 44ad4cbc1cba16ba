"""Clips of many callers, answered together: the router runs on what has gathered, each expert on its own clips."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Final, Protocol

import numpy as np

from hardroute.runtime.bundle import Bundle
from hardroute.runtime.errors import BusyError, EngineError, HardrouteError
from hardroute.runtime.inference.batch_queue import Job, Queues
from hardroute.runtime.inference.networks import MAX_BATCH
from hardroute.runtime.prediction import Prediction, Route, Timing

MAX_WAIT: Final = 0.005  # seconds that a clip waits for others, unless told otherwise
MAX_PENDING: Final = 256
_LONGEST_WAIT: Final = 3600.0


@dataclass(frozen=True)
class BatcherStats:
    """What a batcher has done so far.

    Attributes:
        submitted, answered, failed, cancelled: clips; those that are in none of the last three are pending.
        route_batches, routed: runs of the router, and the clips in them.
        expert_batches, run: runs of all experts together, and the clips in them.
        waited, longest_wait: seconds from the submission of a clip until its expert began; sum and maximum.
    """

    submitted: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    route_batches: int = 0
    routed: int = 0
    expert_batches: int = 0
    run: int = 0
    waited: float = 0.0
    longest_wait: float = 0.0

    @property
    def pending(self) -> int:
        """Clips that wait or are being computed."""
        return self.submitted - self.answered - self.failed - self.cancelled

    @property
    def mean_batch(self) -> float:
        """Clips in an expert's run, on the mean; 0 before the first."""
        return self.run / max(1, self.expert_batches)

    @property
    def mean_wait(self) -> float:
        """Seconds from submission to the expert's beginning, on the mean."""
        return self.waited / max(1, self.run)


class Routed(Protocol):
    """What a batcher stands on: the `Networks` of a bundle, or an `Engine` around them. Clips are as there."""

    @property
    def bundle(self) -> Bundle:
        """Where the networks come from."""

    def check(self, frames: np.ndarray) -> None:
        """Raises ClipError unless these are clips of the bundle's contract."""

    def route(self, frames: np.ndarray) -> list[Route]:
        """Which expert each of N clips is to be answered by."""

    def answer(self, expert: int, frames: np.ndarray) -> np.ndarray:
        """The logits (N, K) float32 of one expert."""


@dataclass(eq=False)
class _Clip:
    frames: np.ndarray
    future: Future[Prediction]
    submitted: float
    route: Route = field(init=False)
    route_ms: float = field(init=False)


class MicroBatcher:
    """Lets many threads share one engine, so that a network runs once for the clips of several of them.

    A clip is routed at once, together with all others that have come meanwhile. Then it waits for clips of the same
    expert: until there are `max_batch` of them, or the first has waited for `max_wait` seconds. While more clips
    come than can be computed, the batches fill by themselves and no clip waits for company.

    An answer equals `engine.predict_batch` on that clip, to the rounding of the inference library.

    Args:
        engine: an `Engine`, or what else answers clips in two steps; stays the caller's: close it after the batcher.
        max_batch: clips in one run of a network, at most.
        max_wait: seconds, see above; 0 never waits for company.
        max_pending: clips that may be under way; `submit` waits while there are so many. None: no bound.
        workers: threads that run networks. One is best where the library itself uses all cores.

    >>> with MicroBatcher(engine) as batcher:  # doctest: +SKIP
    ...     label = batcher.submit(clip.frames).result().label
    """

    def __init__(
        self,
        engine: Routed,
        max_batch: int = MAX_BATCH,
        max_wait: float = MAX_WAIT,
        max_pending: int | None = MAX_PENDING,
        workers: int = 1,
    ) -> None:
        if max_batch < 1 or workers < 1 or (max_pending is not None and max_pending < 1):
            raise ValueError("max_batch, max_pending and workers must be at least 1")
        if not 0 <= max_wait <= _LONGEST_WAIT:  # also refuses NaN
            raise HardrouteError(f"max_wait must be 0 to {_LONGEST_WAIT:g} seconds, got {max_wait:g}")
        self.engine = engine
        self.max_batch, self.max_wait, self.max_pending = max_batch, max_wait, max_pending
        lock = threading.Lock()
        self._work, self._room = threading.Condition(lock), threading.Condition(lock)
        self._queues: Queues[_Clip] = Queues(len(engine.bundle.manifest.experts), max_batch, max_wait)
        self._stats = BatcherStats()
        self._closing, self._pid = False, os.getpid()
        self._workers = [threading.Thread(target=self._serve, name=f"batcher-{n}", daemon=True) for n in range(workers)]
        for worker in self._workers:
            worker.start()

    @property
    def stats(self) -> BatcherStats:
        """The counts at this moment."""
        return self._stats

    def submit(self, frames: np.ndarray, timeout: float | None = None) -> Future[Prediction]:
        """Hands in one clip; never computes anything in the caller's thread.

        Args:
            frames: (T, H, W, 3) uint8 RGB of the contract's size; not to be changed before the answer is there.
            timeout: seconds to wait for one of the `max_pending` places; None: as long as it takes.

        Returns:
            A future that ends with the prediction (`clip` and `clip_sha256` empty) or with what `predict_batch`
            would have raised for this clip alone. It can be cancelled until the clip is routed. Callbacks run
            in the batcher's thread: they must be quick, and must not submit.

        Raises:
            ClipError: wrong dtype or shape.
            BusyError: no place within `timeout`.
            EngineError: batcher or engine is closed, or the batcher was made before a fork.
        """
        if self._pid != os.getpid():  # its threads are the parent's, and so may be whoever holds its lock
            raise EngineError("the batcher was made before a fork and cannot work in the child; make it there")
        self.engine.check(frames[None])
        clip = _Clip(frames, Future(), time.perf_counter())
        with self._work:
            if not self._room.wait_for(self._has_room, timeout):
                raise BusyError(f"{self.max_pending} clips are pending, as many as are taken; try again later")
            if self._closing:
                raise EngineError("the batcher is closed; make another")
            self._count(submitted=1)
            self._queues.arrive(clip)
            self._work.notify()
        return clip.future

    def close(self, cancel: bool = False) -> None:
        """Takes no more clips, answers those that are pending, and ends the threads.

        `cancel` gives up clips that are not routed yet; their futures are cancelled. In a forked child nothing happens.
        """
        if self._pid != os.getpid():
            return
        with self._work:
            self._closing = True
            dropped = self._queues.take_arrived() if cancel else []
            self._count(cancelled=len(dropped))
            self._work.notify_all()
            self._room.notify_all()
        for clip in dropped:
            clip.future.cancel()
            clip.future.set_running_or_notify_cancel()
        for worker in self._workers:
            worker.join()

    def __enter__(self) -> MicroBatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    def _has_room(self) -> bool:
        return self._closing or self.max_pending is None or self._stats.pending < self.max_pending

    def _serve(self) -> None:
        while job := self._wait():
            if job.expert is None:
                self._attempt(self._route, [clip for clip in job.items if self._begins(clip)])
            else:
                self._attempt(partial(self._answer, job.expert), job.items)

    def _wait(self) -> Job[_Clip] | None:
        with self._work:
            while True:
                now = time.perf_counter()
                if job := self._queues.next(now, hurry=self._closing):
                    return job
                if self._closing and not self._stats.pending:
                    self._work.notify_all()
                    return None
                due = self._queues.due()
                self._work.wait(None if due is None else max(0.0, due - now))

    def _begins(self, clip: _Clip) -> bool:
        if begins := clip.future.set_running_or_notify_cancel():
            return begins
        self._done(cancelled=1)
        return False

    def _attempt(self, run: Callable[[list[_Clip]], None], clips: list[_Clip]) -> None:
        """Runs a batch; if that fails, each of its clips alone, so that an error reaches only whose it is."""
        try:
            if clips:
                run(clips)
        except Exception as error:
            if len(clips) > 1:
                for clip in clips:
                    self._attempt(run, [clip])
                return
            self._done(failed=1)
            clips[0].future.set_exception(error)

    def _route(self, clips: list[_Clip]) -> None:
        started = time.perf_counter()
        routes = self.engine.route(_stack(clips))
        now = time.perf_counter()
        with self._work:
            self._count(route_batches=1, routed=len(clips))
            for clip, route in zip(clips, routes, strict=True):
                clip.route, clip.route_ms = route, (now - started) * 1000 / len(clips)
                self._queues.route(route.expert, clip, now)
            self._work.notify_all()

    def _answer(self, expert: int, clips: list[_Clip]) -> None:
        started = time.perf_counter()
        logits = self.engine.answer(expert, _stack(clips))
        spent = (time.perf_counter() - started) * 1000 / len(clips)
        timings = [Timing(0.0, clip.route_ms, spent) for clip in clips]
        classes = self.engine.bundle.manifest.classes
        predictions = Prediction.batch(classes, [clip.route for clip in clips], logits, timings)
        waits = [started - clip.submitted for clip in clips]
        longest = max(self._stats.longest_wait, *waits)
        self._done(answered=len(clips), expert_batches=1, run=len(clips), waited=sum(waits), longest_wait=longest)
        for clip, prediction in zip(clips, predictions, strict=True):
            clip.future.set_result(prediction)

    def _done(self, **counts: float) -> None:
        with self._work:
            self._count(**counts)
            self._room.notify_all()
            if self._closing:
                self._work.notify_all()

    def _count(self, **more: float) -> None:
        # Replaced as a whole, so that a reader without the lock never sees half of a change.
        longest = more.pop("longest_wait", self._stats.longest_wait)
        counts = {name: getattr(self._stats, name) + count for name, count in more.items()}
        self._stats = replace(self._stats, longest_wait=longest, **counts)


def _stack(clips: list[_Clip]) -> np.ndarray:
    return clips[0].frames[None] if len(clips) == 1 else np.stack([clip.frames for clip in clips])

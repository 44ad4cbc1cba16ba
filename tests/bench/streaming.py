"""Sixteen streams that share one engine, against the same streams one after the other; and what bounds the gain."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np

from runtime import Engine
from runtime.batcher import MicroBatcher
from runtime.clips import to_network
from runtime.prediction import Prediction
from runtime.streams import Hub
from tests.bench.measure import Ratio, compare
from tests.bench.subject import Subject
from tests.bench.videos import video_sets

STREAMS, BATCH = 16, 8
GAIN = 1.3  # in clips per second, at least
TURNS = 7


def streaming(subject: Subject) -> list[Ratio]:
    engine = subject.engine
    streams = np.array_split(subject.frames, STREAMS)
    name, files = next(iter(video_sets().items()))
    sources = [files[n % len(files)] for n in range(STREAMS)]
    goal = round(1 / GAIN, 2)
    return [
        compare(
            f"{STREAMS} streams of clips, micro-batcher / one after the other",
            partial(_batched, engine, streams),
            partial(_one_by_one, engine, streams),
            goal=goal,
            turns=TURNS,
        ),
        compare(
            f"{STREAMS} streams of {name} files, hub / one after the other",
            partial(_hub, engine, sources),
            partial(_stream_by_stream, engine, sources),
            goal=goal,
            turns=TURNS,
        ),
        *_bounds(subject, streams),
    ]


def _bounds(subject: Subject, streams: list[np.ndarray]) -> list[Ratio]:
    """No batcher gains more than what a batch saves per clip, times what one stream leaves of the cores."""
    router, *experts = subject.sessions
    x = to_network(subject.frames[:BATCH])
    rows = []
    for name, session in (("router", router), ("expert", experts[0])):
        together = partial(session.run, x)

        def apart(run=session.run) -> None:  # type: ignore[no-untyped-def]
            for n in range(BATCH):
                run(x[n : n + 1])

        rows.append(compare(f"{name}, {BATCH} clips in one batch / one by one", together, apart, turns=TURNS))
    for label, run in (("one after the other", _one_by_one), ("micro-batcher", _batched)):
        wall, cpu = time.perf_counter(), time.process_time()
        run(subject.engine, streams)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        available = wall * (os.cpu_count() or 1)
        rows.append(Ratio.counted(f"cores busy, {label} / all of the time", 1000 * cpu, 1000 * available, "ms"))
    return rows


def _one_by_one(engine: Engine, streams: list[np.ndarray]) -> None:
    for clips in streams:
        for clip in clips:
            engine.predict_batch(clip[None])


def _batched(engine: Engine, streams: list[np.ndarray]) -> None:
    with MicroBatcher(engine, max_batch=BATCH) as batcher:

        def serve(clips: np.ndarray) -> None:
            # As a stream does: a clip is under way while the next one is made.
            under_way: list[Future[Prediction]] = [batcher.submit(clip) for clip in clips]
            for future in under_way:
                future.result()

        threads = [Thread(target=serve, args=(clips,)) for clips in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _hub(engine: Engine, sources: list[Path]) -> None:
    with Hub(engine, on_event=_ignore, max_batch=BATCH) as hub:
        for n, source in enumerate(sources):
            hub.add(source, name=str(n), seconds=2.0, stride=1.0)
        hub.join()


def _stream_by_stream(engine: Engine, sources: list[Path]) -> None:
    for source in sources:
        for _ in engine.stream(source, seconds=2.0, stride=1.0):
            pass


def _ignore(_: object) -> None:
    pass

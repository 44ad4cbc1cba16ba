"""Sixteen streams that share one engine, against the same streams one after the other; and what bounds the gain."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np

from hardroute import Engine
from hardroute.runtime.clips import to_network
from hardroute.runtime.inference import MicroBatcher
from hardroute.runtime.prediction import Prediction
from hardroute.runtime.streams import Hub, Stream
from tests.measure.bench.measure import Ratio, compare
from tests.measure.bench.subject import Subject
from tests.measure.bench.videos import video_sets

STREAMS, BATCH, CORES = 16, 8, os.cpu_count() or 1
GAIN = 1.3  # in clips per second, at least
TURNS = 7


def streaming(subject: Subject) -> list[Ratio]:
    engine = subject.engine
    streams = np.array_split(subject.frames, STREAMS)
    name, files = next(iter(video_sets().items()))
    sources = [files[n % len(files)] for n in range(STREAMS)]
    against = partial(compare, goal=round(1 / GAIN, 2), turns=TURNS)
    one_by_one, stream_by_stream = partial(_one_by_one, engine, streams), partial(_stream_by_stream, engine, sources)
    rows = [
        against("16 streams of clips, micro-batcher / one by one", partial(_batched, engine, streams), one_by_one),
        against(f"16 streams of {name}, hub / one by one", partial(_hub, engine, sources), stream_by_stream),
    ]
    # The other way to use the cores: each network on one, and as many networks at a time as there are cores.
    with Engine.load(subject.bundle, threads=1) as lean:
        batched, hub = partial(_batched, lean, streams, CORES), partial(_hub, lean, sources, CORES)
        rows.append(against(f"the same, {CORES} workers of one thread: clips", batched, one_by_one))
        rows.append(against(f"the same, {CORES} workers of one thread: {name}", hub, stream_by_stream))
    return rows + _bounds(subject, streams)


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
    for label, run in (("one by one", _one_by_one), ("micro-batcher", _batched)):
        wall, cpu = time.perf_counter(), time.process_time()
        run(subject.engine, streams)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows.append(Ratio.counted(f"cores busy, {label} / all of the time", 1000 * cpu, 1000 * wall * CORES, "ms"))
    return rows


def _one_by_one(engine: Engine, streams: list[np.ndarray]) -> None:
    for clips in streams:
        for clip in clips:
            engine.predict_batch(clip[None])


def _batched(engine: Engine, streams: list[np.ndarray], workers: int = 1) -> None:
    with MicroBatcher(engine, max_batch=BATCH, workers=workers) as batcher:

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


def _hub(engine: Engine, sources: list[Path], workers: int = 1) -> None:
    batcher = MicroBatcher(engine, max_batch=BATCH, max_pending=None, workers=workers)
    with batcher, Hub(engine, on_event=_ignore, batcher=batcher) as hub:
        for n, source in enumerate(sources):
            hub.add(source, name=str(n), seconds=2.0, stride=1.0)
        hub.join()


def _stream_by_stream(engine: Engine, sources: list[Path]) -> None:
    for source in sources:
        for _ in Stream(engine, source, seconds=2.0, stride=1.0):
            pass


def _ignore(_: object) -> None:
    pass

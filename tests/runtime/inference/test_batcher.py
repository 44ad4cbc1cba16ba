"""The micro-batcher: the answers of the engine whatever comes when, full batches, errors only where they belong."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardroute import Bundle, Engine, Prediction
from hardroute.runtime.backends import OnnxRuntime
from hardroute.runtime.errors import BackendError, BusyError, ClipError, EngineError, HardrouteError
from hardroute.runtime.inference import MicroBatcher
from hardroute.runtime.inference.batch_queue import Queues
from hardroute.runtime.inference.networks import Networks
from tests.support import gated
from tests.support.bundles import TinyBundle, make_bundle, random_frames
from tests.support.forks import in_child
from tests.support.gated import PATIENCE, GatedBackend

backend, engine = gated.backend, gated.engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("batcher") / "bundle")


def assert_equal(found: Prediction, expected: Prediction) -> None:
    assert (found.label, found.route.expert) == (expected.label, expected.route.expert)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(found.route.logits, expected.route.logits, atol=1e-5)
    assert found.route.margin == pytest.approx(expected.route.margin, abs=1e-5)


def test_it_stands_on_networks_without_an_engine(tiny: TinyBundle) -> None:
    frames = random_frames(12, seed=5)
    networks = Networks.load(Bundle.open(tiny.root), OnnxRuntime("cpu", threads=1))
    with MicroBatcher(networks, max_wait=0.0) as batcher:
        found = [future.result(PATIENCE) for future in [batcher.submit(clip) for clip in frames]]
        with pytest.raises(ClipError, match="this bundle takes"):
            batcher.submit(frames)
    assert [answer.route.expert for answer in found] == tiny.routes(frames).tolist()
    np.testing.assert_allclose([answer.logits for answer in found], tiny.logits(frames), atol=1e-4)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("max_wait", [0.0, 0.002])
def test_answers_equal_predict_in_any_interleaving(engine: Engine, workers: int, max_wait: float) -> None:
    frames = random_frames(96, seed=2)
    expected = engine.predict_batch(frames)
    assert len({p.route.expert for p in expected}) == 3
    order = np.random.default_rng(workers).permutation(96).reshape(8, 12)
    futures: dict[int, Future[Prediction]] = {}
    with MicroBatcher(engine, max_batch=5, max_wait=max_wait, max_pending=20, workers=workers) as batcher:

        def client(mine: np.ndarray) -> None:
            for n in mine.tolist():
                futures[n] = batcher.submit(frames[n])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(client, order))
        assert not wait(futures.values(), PATIENCE).not_done
    for n, future in futures.items():
        assert_equal(future.result(), expected[n])
    stats = batcher.stats
    assert (stats.submitted, stats.answered, stats.pending, stats.routed, stats.run) == (96, 96, 0, 96, 96)
    assert 1 <= stats.mean_batch <= 5 and 0 < stats.mean_wait <= stats.longest_wait


def test_each_expert_runs_once_on_the_clips_that_gathered(
    tiny: TinyBundle, engine: Engine, backend: GatedBackend
) -> None:
    frames = random_frames(24, seed=4)
    load = np.bincount(tiny.routes(frames), minlength=3)
    assert (load[:] > 1).all()
    with MicroBatcher(engine, max_batch=64, max_wait=3600) as batcher:
        futures = [batcher.submit(clip) for clip in frames]
    # Nobody else comes when the batcher closes, so what waits for company runs now: each expert on all of its own.
    assert [future.result(0).route.expert for future in futures] == tiny.routes(frames).tolist()
    assert [backend.runs[f"expert_{n}.onnx"] for n in range(3)] == [[count] for count in load]
    assert sum(backend.runs["router.onnx"]) == 24


def test_a_full_batch_does_not_wait(tiny: TinyBundle, engine: Engine) -> None:
    frames = random_frames(64, seed=4)
    mine = frames[tiny.routes(frames) == 1][:4]
    with MicroBatcher(engine, max_batch=4, max_wait=3600) as batcher:
        futures = [batcher.submit(clip) for clip in mine]
        assert not wait(futures, PATIENCE).not_done
        assert batcher.stats.expert_batches == 1


def test_a_bad_clip_is_refused_before_it_can_reach_a_batch(engine: Engine) -> None:
    frames = random_frames(1)[0]
    with MicroBatcher(engine) as batcher:
        for bad in (frames[:3], frames.astype(np.float32), np.full(frames.shape, np.nan), frames[None]):
            with pytest.raises(ClipError, match=r"frames"):
                batcher.submit(bad)
        assert batcher.submit(frames).result(PATIENCE).label
        assert batcher.stats.submitted == 1


def test_an_error_reaches_only_the_clip_that_causes_it(engine: Engine, backend: GatedBackend) -> None:
    frames = random_frames(12, seed=6)
    frames[:, 0, 0, 0, 0] = 1
    expected = engine.predict_batch(frames)
    frames[5, 0, 0, 0, 0] = 255
    backend.poison = 1.0
    with MicroBatcher(engine, max_batch=12, max_wait=3600) as batcher:
        futures = [batcher.submit(clip) for clip in frames]
    for n, future in enumerate(futures):
        if n == 5:
            assert isinstance(future.exception(0), BackendError)
        else:
            assert_equal(future.result(0), expected[n])
    assert (batcher.stats.answered, batcher.stats.failed, batcher.stats.pending) == (11, 1, 0)


def test_submit_waits_for_a_place(engine: Engine, backend: GatedBackend) -> None:
    frames = random_frames(4, seed=1)
    backend.gate.clear()
    with MicroBatcher(engine, max_batch=1, max_wait=0, max_pending=2) as batcher:
        first = [batcher.submit(clip) for clip in frames[:2]]
        with pytest.raises(BusyError, match="2 clips are pending"):
            batcher.submit(frames[2], timeout=0)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(batcher.submit, frames[2])
            assert backend.entered.acquire(timeout=PATIENCE)
            assert not waiting.done()
            backend.gate.set()
            assert waiting.result(PATIENCE).result(PATIENCE).label
        assert all(future.result(PATIENCE).label for future in first)


def test_close_answers_what_is_pending(engine: Engine, backend: GatedBackend) -> None:
    backend.gate.clear()
    batcher = MicroBatcher(engine, max_batch=2, max_wait=3600)
    futures = [batcher.submit(clip) for clip in random_frames(7)]
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(batcher.close)
        backend.gate.set()
        closing.result(PATIENCE)
    assert all(future.result(0).label for future in futures)
    with pytest.raises(EngineError, match="closed"):
        batcher.submit(random_frames(1)[0])


def test_close_with_cancel_gives_up_what_is_not_routed(engine: Engine, backend: GatedBackend) -> None:
    backend.gate.clear()
    batcher = MicroBatcher(engine, max_batch=1, max_wait=0)
    first = batcher.submit(random_frames(1)[0])
    assert backend.entered.acquire(timeout=PATIENCE)
    futures = [batcher.submit(clip) for clip in random_frames(7)]
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(batcher.close, cancel=True)
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(PATIENCE)
        backend.gate.set()
        closing.result(PATIENCE)
    assert first.result(0).label
    assert (batcher.stats.answered, batcher.stats.cancelled, batcher.stats.pending) == (1, 7, 0)


def test_a_cancelled_clip_costs_nothing(engine: Engine, backend: GatedBackend) -> None:
    backend.gate.clear()
    with MicroBatcher(engine, max_batch=1, max_wait=0) as batcher:
        batcher.submit(random_frames(1)[0])
        assert backend.entered.acquire(timeout=PATIENCE)
        cancelled = batcher.submit(random_frames(1)[0])
        assert cancelled.cancel()
        backend.gate.set()
    assert batcher.stats.cancelled == 1
    assert sum(backend.runs["router.onnx"]) == 1


def test_a_closed_engine_fails_clips_and_hangs_nobody(tiny: TinyBundle, backend: GatedBackend) -> None:
    engine = Engine.load(tiny.root, backend, verify=False)
    backend.gate.clear()
    with MicroBatcher(engine, max_batch=1, max_wait=0) as batcher:
        running = batcher.submit(random_frames(1)[0])
        assert backend.entered.acquire(timeout=PATIENCE)
        queued = batcher.submit(random_frames(1)[0])
        engine.close()
        backend.gate.set()
    assert running.result(0).label
    assert isinstance(queued.exception(0), EngineError)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e12])
def test_a_wait_that_no_clock_can_measure_is_refused(engine: Engine, seconds: float) -> None:
    """Its thread would die of it, and every caller wait for ever."""
    with pytest.raises(HardrouteError, match="max_wait must be 0 to 3600 seconds"):
        MicroBatcher(engine, max_wait=seconds)


def test_a_forked_child_is_told_to_make_its_own(engine: Engine, backend: GatedBackend) -> None:
    frames = random_frames(1)[0]
    with MicroBatcher(engine) as batcher:
        assert batcher.submit(frames).result(PATIENCE)
        with batcher._work:  # as it may be held by another thread at the moment of the fork
            assert in_child(lambda: batcher.submit(frames)) == (
                "EngineError: the batcher was made before a fork and cannot work in the child; make it there"
            )
            assert in_child(batcher.close) == "None"
        assert batcher.submit(frames).result(PATIENCE)


def test_the_threads_end_with_the_batcher(engine: Engine) -> None:
    before = set(threading.enumerate())
    with MicroBatcher(engine, workers=4) as batcher:
        batcher.submit(random_frames(1)[0]).result(PATIENCE)
        assert len(set(threading.enumerate()) - before) == 4
    assert set(threading.enumerate()) - before == set()


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=60),
    max_batch=st.integers(1, 6),
    max_wait=st.integers(0, 20),
)
def test_every_item_runs_once_in_order_and_none_waits_for_ever(
    arrivals: list[tuple[int, int]], max_batch: int, max_wait: int
) -> None:
    """Items arrive after so many ticks, for such an expert; each job takes a tick."""
    queues: Queues[int] = Queues(3, max_batch, max_wait)
    times = np.cumsum([pause for pause, _ in arrivals]).tolist()
    ran: list[list[int]] = [[], [], []]
    now, came, routed = 0, 0, []
    while sum(map(len, ran)) < len(arrivals):
        while came < len(arrivals) and times[came] <= now:
            queues.arrive(came)
            came += 1
        job = queues.next(now)
        if job is None:
            due = queues.due()
            assert due is None or due > now
            assert due is not None or came < len(arrivals), "nothing runs, nothing is due, nothing comes"
            now += 1
            continue
        assert 1 <= len(job.items) <= max_batch
        now += 1
        if job.expert is None:
            routed += job.items
            for item in job.items:
                queues.route(arrivals[item][1], item, now)
        else:
            assert {arrivals[item][1] for item in job.items} == {job.expert}
            ran[job.expert] += job.items
    assert routed == list(range(len(arrivals)))
    for mine in ran:
        assert all(a < b for a, b in pairwise(mine))


def test_a_rare_expert_does_not_starve_while_others_are_busy() -> None:
    """Four clips of expert 0 arrive at every tick, for ever; one of expert 1 came first."""
    queues: Queues[str] = Queues(2, 4, 5)
    queues.arrive("rare")
    for now in range(200):
        for _ in range(4):
            queues.arrive("common")
        job = queues.next(now)
        assert job is not None
        if job.expert is None:
            for item in job.items:
                queues.route(int(item == "rare"), item, now)
        elif job.expert == 1:
            assert job.items == ["rare"]
            return
    pytest.fail("the rare expert never ran")

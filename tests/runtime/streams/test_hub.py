"""The hub: many sources, one engine; in order, counted, logged before they are heard of, and none in another's way."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hardroute import Engine, HardrouteError, Prediction, RouteLog, decode
from hardroute.runtime.clips import Limits
from hardroute.runtime.errors import ClipError
from hardroute.runtime.inference import MicroBatcher
from hardroute.runtime.streams import Hub, Stream, StreamCounts, StreamEvent
from hardroute.runtime.streams.open_video import FrameTake
from tests.support import gated
from tests.support.bundles import TinyBundle, make_bundle
from tests.support.forks import in_child
from tests.support.gated import PATIENCE, GatedBackend
from tests.support.videos import grey_frames, write

backend, engine = gated.backend, gated.engine


class Noise:
    """A source of noise, 10 frames a second; each call of `before` precedes a frame."""

    fps = 10.0

    def __init__(self, seconds: float, seed: int = 0, before: Callable[[int], object] = lambda n: None) -> None:
        self._count, self._before = round(10 * seconds), before
        self._rng = np.random.default_rng(seed)
        self._n = 0

    def read(self) -> tuple[float, np.ndarray] | None:
        self._before(self._n)
        if self._n == self._count:
            return None
        self._n += 1
        return self._n / 10, self._rng.integers(0, 256, (8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("hub") / "bundle")


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = {thread for thread in set(threading.enumerate()) - before if not thread.name.startswith("route-log")}
    assert not left


def at(frame: int, event: threading.Event) -> Callable[[int], None]:
    """Sets the event before that frame is read."""
    return lambda n: event.set() if n == frame else None


def whole(counts: StreamCounts) -> bool:
    return counts.windows == counts.answered + counts.failed + counts.dropped


def test_a_files_windows_get_the_answers_of_predict(engine: Engine, tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", np.random.default_rng(0).integers(0, 256, (30, 24, 32, 3), np.uint8), fps=10)
    events = list(Stream(engine, path, seconds=1.0))
    assert [(e.kind, e.index, e.start, e.end, e.error) for e in events] == [
        ("window", k, float(k), k + 1.0, None) for k in range(3)
    ]
    first = events[0].prediction
    clip = decode(path, engine.contract.model_copy(update={"seconds": 1.0}))
    expected = engine.predict(clip)
    assert first is not None
    np.testing.assert_allclose(first.logits, expected.logits, atol=1e-5)
    assert (first.label, first.clip, first.clip_sha256) == (expected.label, "a.avi", clip.sha256)
    assert first.milliseconds.decode > 0


def test_a_broken_and_a_silent_source_harm_no_other(engine: Engine, tmp_path: Path) -> None:
    """Eight sources: five good, one garbage, one that raises, one that says nothing until the others are done."""
    (tmp_path / "garbage.mp4").write_bytes(b"\0\0\0\x20ftypisom" + np.random.default_rng(0).bytes(5000))
    others_done = threading.Event()
    good_left = {f"good {n}" for n in range(5)}

    def explode(n: int) -> None:
        if n == 15:
            raise ValueError("a bug in a driver\nforged line")

    events: dict[str, list[StreamEvent]] = {}

    def heard(event: StreamEvent) -> None:
        events.setdefault(event.source, []).append(event)
        if event.kind == "end":
            good_left.discard(event.source)
            if not good_left:
                others_done.set()

    with Hub(engine, on_event=heard, max_batch=4) as hub:
        hub.add(Noise(5.0, before=lambda n: n != 15 or others_done.wait(PATIENCE)), name="silent", seconds=1.0)
        hub.add(Noise(5.0, before=explode), name="raises", seconds=1.0)
        hub.add(tmp_path / "garbage.mp4", name="garbage", seconds=1.0)
        for n in range(5):
            hub.add(Noise(6.0, seed=n), name=f"good {n}", seconds=1.0, stride=0.5)
        assert hub.join(PATIENCE)
        counts = hub.counts
        assert hub.batcher.stats.pending == 0
    assert others_done.is_set(), "the silent source spoke only after the good ones had ended"
    for n in range(5):
        mine = events[f"good {n}"]
        assert [e.index for e in mine[:-1]] == list(range(12)) and mine[-1].kind == "end"
        assert all(e.prediction for e in mine[:-1])
        # The same noise alone gives the same answers.
        alone = [e.prediction for e in Stream(engine, Noise(6.0, seed=n), seconds=1.0, stride=0.5)]
        for found, expected in zip(mine[:-1], alone, strict=True):
            assert found.prediction and expected
            np.testing.assert_allclose(found.prediction.logits, expected.logits, atol=1e-5)
    assert [e.kind for e in events["garbage"]] == ["clip", "end"] and "garbage.mp4" in str(events["garbage"][0].error)
    assert "ValueError: a bug in a driver forged line" in str(events["raises"][-1].error)
    assert counts["raises"].answered == 1 and counts["silent"].answered == 5
    assert all(whole(own) for own in counts.values())


def test_drop_oldest_keeps_the_newest_and_counts_the_rest(engine: Engine, backend: GatedBackend) -> None:
    backend.gate.clear()

    with Stream(
        engine, Noise(20.0, before=at(200, backend.gate)), seconds=1.0, policy="drop-oldest", depth=3, ahead=2
    ) as stream:
        events = list(stream)
    answered = [e.index for e in events if e.prediction and e.index is not None]
    assert answered == sorted(answered)
    assert answered[-3:] == [17, 18, 19], "what comes last is answered"
    assert len(answered) <= 2 + 3 + 1 and sum(e.dropped for e in events) == 20 - len(answered) > 0


def test_block_reads_no_further_than_it_may(engine: Engine, backend: GatedBackend) -> None:
    leads = []
    hub = Hub(engine, on_event=lambda event: None, max_wait=0)

    def before(n: int) -> None:
        counts = hub.counts["noise"]
        leads.append(counts.windows - counts.answered)

    with hub:
        hub.add(Noise(40.0, before=before), name="noise", seconds=1.0, policy="block", depth=3, ahead=2)
        assert hub.join(PATIENCE)
        counts = hub.counts["noise"]
    # Those that wait, those under way, and one on each side that has just been taken out and not yet been counted.
    assert max(leads) <= 3 + 2 + 2
    assert (counts.windows, counts.answered, counts.dropped) == (40, 40, 0)


def test_every_window_is_accounted_for_when_the_hub_is_closed_early(engine: Engine, backend: GatedBackend) -> None:
    backend.gate.clear()
    far = {name: threading.Event() for name in "ab"}
    hub = Hub(engine, on_event=lambda event: None)
    hub.add(Noise(1e6, before=at(200, far["a"])), name="a", seconds=1.0, policy="drop-oldest")
    hub.add(Noise(1e6, before=at(100, far["b"])), name="b", seconds=1.0, policy="block")
    assert all(event.wait(PATIENCE) for event in far.values())
    closing = threading.Thread(target=hub.close)
    closing.start()
    # Closing waits for the answers that are under way, and the source that blocks drops only because it is closed.
    while not hub.counts["b"].dropped:
        closing.join(0.001)
    backend.gate.set()
    closing.join(PATIENCE)
    for counts in hub.counts.values():
        assert whole(counts) and counts.dropped > 0 and counts.answered > 0


class SlowLog:
    """A log whose lines are written when a test says so."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.lines: list[tuple[Any, Future[str]]] = []

    def submit(self, record: Any) -> Future[str]:
        future: Future[str] = Future()
        self.lines.append((record, future))
        self.asked.release()
        return future


def test_an_answer_is_heard_of_after_its_line_while_inference_goes_on(engine: Engine) -> None:
    log, heard, told = SlowLog(), [], threading.Semaphore(0)

    def listen(event: StreamEvent) -> None:
        heard.append(event)
        told.release()

    hub = Hub(engine, log=log, on_event=listen, max_batch=1, max_wait=0)
    hub.add(Noise(4.0), name="noise", seconds=1.0, ahead=4)
    # All four windows are computed and handed to the log, although not one line is written yet.
    reached = [log.asked.acquire(timeout=PATIENCE) for _ in range(4)]
    silent = not heard
    order = []
    for n, (_, line) in enumerate(log.lines):
        order.append([event.index for event in heard] == list(range(n)))
        line.set_result("head")
        told.acquire(timeout=PATIENCE)
    # Closed before anything is asserted, for it waits for the lines.
    ended = hub.join(PATIENCE)
    hub.close()
    assert all(reached) and silent and all(order) and ended
    assert [e.index for e in heard] == [0, 1, 2, 3, None]
    assert [record.window["index"] for record, _ in log.lines] == [0, 1, 2, 3]
    assert all(e.records == (record,) for e, (record, _) in zip(heard, log.lines, strict=False))


def test_no_answer_without_its_line(engine: Engine) -> None:
    class FullDisk:
        def submit(self, record: Any) -> Future[str]:
            future: Future[str] = Future()
            future.set_exception(HardrouteError("route log x: no space left"))
            return future

    with Hub(engine, log=FullDisk()) as hub:
        hub.add(Noise(2.0), name="noise", seconds=1.0)
        events = list(hub)
        counts = hub.counts["noise"]
    assert [(e.prediction, e.records) for e in events] == [(None, ())] * 3
    assert "no space left" in str(events[0].error)
    assert (counts.answered, counts.failed) == (0, 2)


def test_the_log_has_every_window_in_order_and_what_was_dropped(
    engine: Engine, backend: GatedBackend, tmp_path: Path
) -> None:
    backend.gate.clear()
    with RouteLog(tmp_path / "log") as log, Hub(engine, log=log) as hub:
        hub.add(Noise(3.0, before=at(30, backend.gate)), name="b", seconds=1.0)
        hub.add(
            Noise(20.0, before=at(200, backend.gate)),
            name="a",
            seconds=1.0,
            policy="drop-oldest",
            depth=2,
            ahead=1,
        )
        events = list(hub)
        counts = hub.counts
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    for name in "ab":
        answered = [line["window"]["index"] for line in lines if line["stream"] == name and "label" in line]
        assert answered == [e.index for e in events if e.source == name and e.prediction]
        dropped = sum(line["count"] for line in lines if line["stream"] == name and line.get("event") == "dropped")
        assert dropped == counts[name].dropped and len(answered) + dropped == counts[name].windows
    assert counts["a"].dropped > 0 and counts["b"].dropped == 0


def test_a_window_that_fails_is_said_and_the_next_ones_are_answered(engine: Engine, backend: GatedBackend) -> None:
    class Black:
        fps = 10.0

        def __init__(self) -> None:
            self.n = -1

        def read(self) -> tuple[float, np.ndarray] | None:
            self.n += 1
            return (self.n / 10, np.full((8, 8, 3), 51 * (self.n // 10), np.uint8)) if self.n < 40 else None

    backend.poison = float(np.float32(51) / np.float32(255))
    with Stream(engine, Black(), seconds=1.0) as stream:
        events = list(stream)
    assert [e.prediction is not None for e in events] == [True, False, True, True]
    assert events[1].error == "poisoned"


def test_the_watch_sees_every_answer_and_abstaining_keeps_the_line(engine: Engine, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Alarm:
        kind: str

    class Watch:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def observe(self, prediction: Prediction, source: str = "") -> tuple[Alarm, ...]:
            self.seen.append(source)
            return (Alarm("load"),) if len(self.seen) == 2 else ()

    watch = Watch()
    with (
        RouteLog(tmp_path / "log") as log,
        Hub(engine, log=log, watch=watch, abstain=lambda prediction: len(watch.seen) == 3) as hub,
    ):
        hub.add(Noise(4.0), name="noise", seconds=1.0)
        events = list(hub)[:4]
        assert hub.counts["noise"].abstained == 1
    assert [e.alarms for e in events] == [(), ("load",), (), ()]
    assert [e.abstained for e in events] == [False, False, True, False]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line.get("alarms") for line in lines] == [None, ["load"], None, None]
    assert [line.get("abstained") for line in lines] == [None, None, True, None]


def test_a_listener_that_fails_stops_nothing(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def fails(event: StreamEvent) -> None:
        raise KeyError("a bug in the host")

    with Hub(engine, on_event=fails) as hub:
        hub.add(Noise(3.0), name="noise", seconds=1.0)
        assert hub.join(PATIENCE)
        assert hub.counts["noise"].answered == 3
    assert "the listener of stream noise failed" in caplog.text


def _fails(*_: object) -> Any:
    raise ValueError("a bug\nof the host's")


@pytest.mark.parametrize("part", ["watch", "abstain", "log", "line"])
def test_whatever_is_plugged_in_may_fail(engine: Engine, part: str, tmp_path: Path) -> None:
    """The host's own code must neither end a source nor keep the hub from closing."""
    plug: Any = type("Plug", (), {"observe": _fails, "submit": _fails})()
    if part == "line":
        failed: Future[str] = Future()
        failed.set_exception(OSError(28, "no space left"))
        plug.submit = lambda record: failed
    with RouteLog(tmp_path / "log") as lines:
        parts = {"log": lines, **({"log": plug} if part == "line" else {part: _fails if part == "abstain" else plug})}
        with Hub(engine, **parts) as hub:
            hub.add(Noise(2.0), name="noise", seconds=1.0)
            hub.add(Noise(1.0), name="other", seconds=1.0)
            assert hub.join(PATIENCE)
            events = [event for event in hub if event.source == "noise"]
            counts = hub.counts["noise"]
    assert [event.prediction for event in events] == [None] * 3 and (counts.failed, counts.answered) == (2, 0)
    says = "OSError: [Errno 28] no space left" if part == "line" else "ValueError: a bug of the host's"
    assert says in str(events[0].error)
    # What failed before the log has its line in there.
    if part in ("watch", "abstain"):
        assert (tmp_path / "log").read_text().count("ValueError") == 3


def test_a_forked_child_leaves_the_sources_to_its_parent(engine: Engine, tmp_path: Path) -> None:
    far, on = threading.Event(), threading.Event()

    def before(n: int) -> None:
        if n == 5:
            far.set()
            on.wait(PATIENCE)

    frames = Noise(2.0, before=before)
    take = FrameTake(frames, "process", Limits())
    # A camera is read by a process, which a call in the child ends as well as one in the parent.
    take.cancel = (tmp_path / "ended").touch  # type: ignore[method-assign]
    source = SimpleNamespace(name="process", live=False, takes=lambda: iter([nullcontext(take)]))
    with Hub(engine, on_event=lambda event: None) as hub:
        hub.add(source, seconds=1.0)
        assert far.wait(PATIENCE)
        assert in_child(hub.close) == "None" and not (tmp_path / "ended").exists()
        on.set()
        assert hub.join(PATIENCE) and hub.counts["process"].answered == 2


def test_sources_come_and_go(engine: Engine) -> None:
    first = threading.Event()
    ended: dict[str, threading.Event] = {name: threading.Event() for name in "ab"}

    def heard(event: StreamEvent) -> None:
        first.set()
        if event.kind == "end":
            ended[event.source].set()

    with Hub(engine, on_event=heard) as hub:
        hub.add(Noise(1e9), name="a", seconds=1.0)
        assert first.wait(PATIENCE)
        with pytest.raises(HardrouteError, match="a is already being served"):
            hub.add(Noise(1.0), name="a")
        hub.add(Noise(2.0), name="b", seconds=1.0)
        assert ended["b"].wait(PATIENCE) and not ended["a"].is_set()
        hub.remove("a")
        assert ended["a"].wait(PATIENCE)
        assert hub.join(PATIENCE)
        assert list(hub.counts) == ["b"]
        with pytest.raises(HardrouteError, match="no source 'a' is being served; known: b"):
            hub.remove("a")
    with pytest.raises(HardrouteError, match="hub is closed"):
        hub.add(Noise(1.0))


def test_a_listener_may_remove_its_source(engine: Engine) -> None:
    hub = Hub(engine, on_event=lambda event: hub.remove("noise") if event.index == 3 else None)
    with hub:
        hub.add(Noise(1e9), name="noise", seconds=1.0)
        assert hub.join(PATIENCE)


def test_a_batcher_may_be_shared(engine: Engine) -> None:
    with MicroBatcher(engine) as batcher:
        with Hub(engine, batcher=batcher) as hub:
            hub.add(Noise(2.0), seconds=1.0)
            assert len(list(hub)) == 3
        assert batcher.submit(np.zeros((4, 8, 8, 3), np.uint8)).result(PATIENCE).label


def test_a_stream_ends_when_it_is_left_or_forgotten(engine: Engine) -> None:
    before = threading.active_count()
    with Stream(engine, Noise(1e9), seconds=1.0) as stream:
        assert next(stream).prediction
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert list(stream) == []
    forgotten = Stream(engine, Noise(1e9), seconds=1.0)
    next(forgotten)
    del forgotten
    gc.collect()
    assert threading.active_count() == before


def test_a_source_that_is_none_is_refused_before_anything_runs(engine: Engine) -> None:
    with pytest.raises(ClipError, match="no such file"):
        Stream(engine, "absent.mp4")
    with pytest.raises(HardrouteError, match="overlap"):
        Stream(engine, Noise(1.0), seconds=10.0, stride=0.01)


def test_corrupt_frames_are_told_with_the_next_event(engine: Engine, tmp_path: Path) -> None:
    class Torn(Noise):
        def read(self) -> tuple[float, np.ndarray] | None:
            read = super().read()
            return (read[0], read[1][..., :2]) if read and self._n in (3, 4, 17) else read

    with Hub(engine) as hub:
        hub.add(Torn(3.0), seconds=1.0)
        events = list(hub)
    assert sum(e.corrupt for e in events) == 3 and all(e.prediction for e in events[:3])


def test_grey_video_through_the_whole_way(engine: Engine, tmp_path: Path) -> None:
    """A folder with a broken file between good ones."""
    for name in ("a.avi", "c.avi"):
        write(tmp_path / name, grey_frames(20), fps=10)
    (tmp_path / "b.avi").write_bytes(b"RIFF")
    events = list(Stream(engine, tmp_path, seconds=1.0))
    assert [(e.kind, e.video, e.index) for e in events] == [
        ("window", 0, 0),
        ("window", 0, 1),
        ("clip", 1, None),
        ("window", 2, 2),
        ("window", 2, 3),
    ]

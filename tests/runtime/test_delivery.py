"""No answer without its line: command, streams and service do the same about the same faults."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from fastapi.testclient import TestClient

from hardroute import Engine, HardrouteError, Hub, Prediction, RouteLog
from hardroute.runtime.cli import options
from hardroute.runtime.cli.predict import predict
from hardroute.runtime.delivery import Delivered, Delivery, Pending
from hardroute.runtime.errors import ClipError
from hardroute.runtime.inference import VideoPrediction
from hardroute.runtime.routelog import LogSettings, Receipt, with_receipts
from hardroute.runtime.service import Service, create_app
from hardroute.runtime.watch import Abstain
from tests.support import gated
from tests.support.bundles import TinyBundle, make_bundle, write_video
from tests.support.gated import PATIENCE, GatedBackend
from tests.support.watched import prediction

backend, engine = gated.backend, gated.engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("delivery") / "bundle")


@dataclass(frozen=True)
class Alarm:
    kind: str


class Watch:
    """Raises an alarm on the second answer, or an exception on each."""

    def __init__(self, broken: bool = False) -> None:
        self._broken, self._seen = broken, 0

    def observe(self, answer: Prediction, source: str = "") -> tuple[Alarm, ...]:
        self._seen += 1
        if self._broken:
            raise ValueError("a bug\nof the watch")
        return (Alarm("load"),) if self._seen == 2 else ()

    def metrics(self) -> dict[str, float]:
        return {}


def broken_rule(answer: Prediction) -> bool:
    raise ValueError("a bug\nof the rule")


def never(answer: Prediction) -> bool:
    return True


class FullLog(RouteLog):
    """Takes no line, by an exception at once."""

    def submit(self, record: Any) -> Future[Receipt]:
        raise HardrouteError("route log: too many records wait; this one is lost")


class FailingLog(RouteLog):
    """Takes no line, by an exception when it is to be written."""

    def append(self, record: Any) -> Receipt:
        raise OSError(28, "no space left")


@dataclass(frozen=True)
class Case:
    """What is broken, and what becomes of two good clips with the named fault: (word in the log, part of its text)."""

    lines: tuple[tuple[str, str], ...]
    answered: tuple[bool, bool] = (True, True)
    watch: Callable[[], Watch] | None = None
    abstain: Callable[[Prediction], bool] | None = None
    log: type[RouteLog] = RouteLog
    broken: bool = False
    spoil: bool = False


ANSWER = ("answer", "")
CASES = {
    "nothing": Case((ANSWER, ANSWER)),
    "bad clip": Case((("clip", "no video track"), ANSWER), (False, True), spoil=True),
    "failing network": Case((("error", "broken"),) * 2, (False, False), broken=True),
    "failing watch": Case((("error", "ValueError: a bug of the watch"),) * 2, (False, False), lambda: Watch(True)),
    "failing rule": Case((("error", "ValueError: a bug of the rule"),) * 2, (False, False), abstain=broken_rule),
    "failing log": Case((), (False, False), log=FailingLog),
    "full log": Case((), (False, False), log=FullLog),
    "abstain": Case((("abstained", ""),) * 2, abstain=never),
    "alarm": Case((ANSWER, ("load", "")), watch=Watch),
}


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "clips"
    folder.mkdir()
    return [write_video(folder / f"{name}.mp4", seed=n) for n, name in enumerate("ab")]


@dataclass(frozen=True)
class Heard:
    """Of one clip: the label, or why there is none."""

    label: str | None
    error: str | None
    abstained: bool = False


Caller = Callable[[Engine, "list[Path]", Case, RouteLog, pytest.MonkeyPatch], "list[Heard]"]


def by_stream(engine: Engine, clips: list[Path], case: Case, log: RouteLog, _: pytest.MonkeyPatch) -> list[Heard]:
    watch = case.watch() if case.watch else None
    with Hub(engine, log=log, watch=watch, abstain=case.abstain, max_batch=1) as hub:
        hub.add(clips[0].parent, name="folder", seconds=1.0)
        events = [event for event in hub if event.kind != "end"]
    return [Heard(e.prediction.label if e.prediction else None, e.error, e.abstained) for e in events]


def by_service(engine: Engine, clips: list[Path], case: Case, log: RouteLog, _: pytest.MonkeyPatch) -> list[Heard]:
    watch: Any = case.watch() if case.watch else None
    service = Service(engine, log=log, watch=watch, abstain=case.abstain)
    heard = []
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        for clip in clips:
            said = client.post("/v1/predict", files={"file": (clip.name, clip.read_bytes())}).json()
            assert "ValueError" not in str(said)
            heard.append(Heard(said.get("label"), said.get("error"), said.get("abstained") is True))
    return heard


def by_command(
    engine: Engine, clips: list[Path], case: Case, log: RouteLog, monkeypatch: pytest.MonkeyPatch
) -> list[Heard]:
    said: list[tuple[str, bool]] = []
    watch = case.watch() if case.watch else None
    # The command makes engine, log and rule itself, and has no watch: what it makes is put in its way.
    monkeypatch.setattr(options, "open_engine", lambda *_: engine)
    monkeypatch.setattr(options, "open_log", lambda *_: contextlib.nullcontext(log))
    monkeypatch.setattr(options, "open_abstain", lambda _: case.abstain)
    monkeypatch.setattr(
        "hardroute.runtime.cli.predict.Delivery", lambda digest, **parts: Delivery(digest, **{**parts, "watch": watch})
    )
    monkeypatch.setattr(typer, "echo", lambda text, err=False: said.append((text, err)))
    command: Any = predict.__wrapped__  # type: ignore[attr-defined]
    with contextlib.suppress(typer.Exit):
        command(bundle=Path(), videos=clips, as_json=True, abstain=Abstain(), log_settings=LogSettings())
    heard = []
    for text, err in said:
        line = {} if err else json.loads(text)
        heard.append(Heard(line.get("label"), text if err else None, line.get("abstained") is True))
    return heard


def lines_of(path: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [_word(line) for line in lines if line.get("event") != "lost"]


def _word(line: dict[str, Any]) -> tuple[str, str]:
    if "event" in line:
        assert "label" not in line and len(line["bundle_sha256"]) == 64
        return line["event"], line["error"]
    return "abstained" if line.get("abstained") else ",".join(line.get("alarms", ["answer"])), ""


@pytest.mark.parametrize("call", [by_stream, by_service, by_command])
@pytest.mark.parametrize("name", CASES)
def test_the_same_fault_has_the_same_lines_and_withholds_the_same_answers(
    engine: Engine,
    backend: GatedBackend,
    clips: list[Path],
    tmp_path: Path,
    name: str,
    call: Caller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = CASES[name]
    if case.spoil:
        clips[0].write_bytes(b"\0\0\0\x18ftypisom" + np.random.default_rng(0).bytes(5000))
    if case.broken:
        backend.broken = True
    log = case.log(tmp_path / "log")
    heard = call(engine, clips, case, log, monkeypatch)
    with contextlib.suppress(HardrouteError):
        log.close()
    assert [one.error is None for one in heard] == list(case.answered)
    found = lines_of(tmp_path / "log")
    assert len(found) == len(case.lines)
    for (word, text), (expected, part) in zip(found, case.lines, strict=True):
        assert word == expected and part in text, text
    for one, answered in zip(heard, case.answered, strict=True):
        if not answered:
            assert one.label is None
        # A person at the command line sees a label only in the line, which says that it is withheld.
        assert one.abstained is (name == "abstain")


class Lines:
    """A log whose lines are written, or fail, when a test says so."""

    def __init__(self) -> None:
        self.handed: list[tuple[Any, Future[str]]] = []

    def submit(self, record: Any) -> Future[str]:
        self.handed.append((record, Future()))
        return self.handed[-1][1]


def test_nobody_waits_for_the_disk_before_the_result() -> None:
    log, woken = Lines(), threading.Event()
    pending = Delivery("ab" * 32, log=log).answer(prediction(), dropped=3)
    pending.add_done_callback(lambda line: woken.set())
    assert not pending.done() and [record.count for record, _ in log.handed[:1]] == [3]
    for _, line in log.handed:
        line.set_result("head")
    delivered = pending.result()
    assert pending.done() and woken.is_set() and delivered.answer is not None
    assert delivered.records == tuple(record for record, _ in log.handed)


def test_one_line_of_several_that_fails_withholds_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    log = Lines()
    pending = Delivery("ab" * 32, log=log).answer(prediction(), dropped=3)
    log.handed[1][1].set_result("head")
    log.handed[0][1].set_exception(OSError(28, "no space left"))
    delivered = pending.result()
    assert (delivered.answer, delivered.records) == (None, ())
    assert delivered.log_error == "OSError: [Errno 28] no space left"
    assert delivered.error == f"no answer without its line: {delivered.log_error}"
    assert delivered.error in caplog.text


def test_a_coroutine_that_stops_waiting_takes_no_line_back() -> None:
    log = Lines()

    async def leave() -> Delivered[Prediction]:
        pending = Delivery("ab" * 32, log=log).answer(prediction())
        waiting = asyncio.ensure_future(pending.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        line = log.handed[0][1]
        assert not line.cancelled() and not line.done()
        again = asyncio.ensure_future(pending.wait())
        await asyncio.sleep(0)
        line.set_result("head")
        return await asyncio.wait_for(again, PATIENCE)

    assert asyncio.run(leave()).answer is not None


@pytest.mark.parametrize(
    "fault, word",
    [(ClipError("a.mp4: cut off"), "clip"), (OSError("a\nb"), "error"), (ValueError("long" * 50_000), "error")],
    ids=["clip", "two lines", "too long for a line"],
)
def test_what_failed_before_there_was_an_answer_has_its_line(tmp_path: Path, fault: Exception, word: str) -> None:
    with RouteLog(tmp_path / "log") as log:
        delivered = Delivery("ab" * 32, log=log).failure(fault, clip="a.mp4").result()
    (line,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert (line["event"], line["clip"], line["error"]) == (word, "a.mp4", delivered.error)
    assert "\n" not in str(delivered.error)


def test_without_a_log_answers_go_out_all_the_same() -> None:
    delivery = Delivery("ab" * 32, abstain=Abstain(margin=0.9))
    found = [delivery.answer(prediction(margin=margin)).result() for margin in (0.8, 0.95)]
    assert [(one.answer is None, one.abstained, len(one.records)) for one in found] == [
        (False, True, 1),
        (False, False, 1),
    ]
    assert delivery.event(None).result().records == ()


def test_each_line_has_its_receipt(tmp_path: Path) -> None:
    with RouteLog(tmp_path / "log") as log:
        delivered = Delivery("ab" * 32, log=log).answer(prediction(), dropped=3).result()
    lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    assert [(one.seq, one) for one in delivered.receipts] == [
        (n, hashlib.sha256(line).hexdigest()) for n, line in enumerate(lines, 1)
    ]
    assert with_receipts(delivered.records, delivered.receipts) == [
        line.decode().rstrip().replace(f'"prev": "{json.loads(line)["prev"]}"', f'"head": "{receipt}"')
        for line, receipt in zip(lines, delivered.receipts, strict=True)
    ]
    # A log of another kind has none, and is good enough to be written to.
    other = Lines()
    pending = Delivery("ab" * 32, log=other).answer(prediction())
    other.handed[0][1].set_result("head")
    assert pending.result().receipts == () and pending.result().answer is not None


def test_an_alarm_is_not_lost_with_the_answer(tmp_path: Path) -> None:
    watch = Watch()
    with RouteLog(tmp_path / "log") as log:
        delivery = Delivery("ab" * 32, log=log, watch=watch, abstain=broken_rule)
        found: list[Pending[Prediction]] = [delivery.answer(prediction()) for _ in range(2)]
        assert [one.result().alarms for one in found] == [(), ("load",)]
    assert json.loads((tmp_path / "log").read_text().splitlines()[1])["alarms"] == ["load"]


def test_every_clip_of_a_video_is_watched_judged_and_logged() -> None:
    video = VideoPrediction.mean("abc", [prediction(margin=m) for m in (0.9, 0.9, 0.1)], [(0, 1), (1, 2), (2, 3)])
    delivered = Delivery("ab" * 32, watch=Watch(), abstain=Abstain(margin=0.5)).answer(video).result()
    assert delivered.answer is video and delivered.abstained
    lines = [json.loads(record.to_json()) for record in delivered.records]
    assert [line["window"]["index"] for line in lines] == [0, 1, 2]
    assert [line.get("alarms") for line in lines] == [None, ["load"], None]
    assert [line["abstained"] for line in lines] == [True] * 3

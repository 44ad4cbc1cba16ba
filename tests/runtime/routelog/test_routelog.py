"""One line per answered clip that can still be trusted and read a year later."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardroute import Engine, HardrouteError, Prediction, Route, RouteLog, RouteRecord
from hardroute.runtime.inference import Timing
from hardroute.runtime.routelog import EventRecord, Window
from hardroute.runtime.routelog.chain import MAX_LINE
from hardroute.runtime.routelog.verify import verify_log
from tests.support.bundles import digest_of, make_bundle, write_video

DIGEST = "ab" * 32


def prediction(clip: str = "a.mp4") -> Prediction:
    logits = np.array([0.1, 2.3, -1], np.float32)
    return Prediction(
        label="right",
        index=1,
        probability=0.871,
        probabilities=np.array([0.1, 0.871, 0.029], np.float32),
        logits=logits,
        route=Route.from_logits(np.array([0.3, 0.1], np.float32)),
        milliseconds=Timing(3.14159, 0.5, 1.25),
        clip=clip,
        clip_sha256="cd" * 32,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_says_everything_about_one_clip(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    with RouteLog(tmp_path / "log.jsonl") as log:
        log.append(RouteRecord.from_prediction(prediction(), DIGEST))
    (line,) = lines(tmp_path / "log.jsonl")
    time = datetime.fromisoformat(line.pop("time"))
    assert before <= time <= datetime.now(UTC) and time.utcoffset() == timedelta(0)
    assert line.pop("weights") == pytest.approx([0.549834, 0.450166], abs=1e-6)
    assert line.pop("margin") == pytest.approx(0.099668, abs=1e-6)
    assert line == {
        "seq": 1,
        "prev": "0" * 64,
        "schema": 2,
        "clip": "a.mp4",
        "clip_sha256": "cd" * 32,
        "bundle_sha256": DIGEST,
        "label": "right",
        "probability": 0.871,
        "expert": 0,
        "ms": {"decode": 3.142, "route": 0.5, "expert": 1.25},
    }


def test_the_digests_are_those_of_the_files(tmp_path: Path) -> None:
    tiny = make_bundle(tmp_path / "bundle")
    video = write_video(tmp_path / "v.mp4")
    engine = Engine.load(tiny.root)
    record = RouteRecord.from_prediction(engine.predict(video), engine.bundle.digest)
    assert record.clip_sha256 == hashlib.sha256(video.read_bytes()).hexdigest()
    assert record.bundle_sha256 == digest_of(tiny.root)


def test_float32_weights_come_back_exactly() -> None:
    weights = Route.from_logits(np.random.default_rng(0).normal(size=50).astype(np.float32)).weights
    route = Route(0, weights, weights, 0.5)
    record = RouteRecord.from_prediction(Prediction(**{**vars(prediction()), "route": route}), DIGEST)
    np.testing.assert_array_equal(np.float32(json.loads(record.to_json())["weights"]), weights)


@pytest.mark.parametrize("name", ["two\nlines.mp4", "\u2028.mp4", "\x1b[31m.mp4", 'quo"te\\.mp4', "\udcff.mp4", ""])
def test_any_file_name_stays_on_one_line_and_comes_back(tmp_path: Path, name: str) -> None:
    with RouteLog(tmp_path / "log") as log:
        log.append(RouteRecord.from_prediction(prediction(name), DIGEST))
        log.append(RouteRecord.from_prediction(prediction(), DIGEST))
    data = (tmp_path / "log").read_bytes()
    assert data.isascii() and data.count(b"\n") == 2 and b"\x1b" not in data
    assert [line["clip"] for line in lines(tmp_path / "log")] == [name, "a.mp4"]


def test_an_existing_log_is_only_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for clip in ("first", "second"):
        with RouteLog(path) as log:
            log.append(RouteRecord.from_prediction(prediction(clip), DIGEST))
    assert [line["clip"] for line in lines(path)] == ["first", "second"]


def test_nothing_is_created_before_the_first_record(tmp_path: Path) -> None:
    with RouteLog(tmp_path / "log"):
        pass
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HardrouteError, match="no such folder"):
        RouteLog(tmp_path / "absent" / "log")
    with pytest.raises(HardrouteError, match="is a folder"):
        RouteLog(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(HardrouteError, match="no such folder"):
        RouteLog(tmp_path / "file" / "log")
    # Asked of the system rather than tried with chmod, which stops nobody who runs as root.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(HardrouteError, match="no permission"):
        RouteLog(tmp_path / "log")


def test_optional_fields_are_there_only_when_they_say_something() -> None:
    bare = json.loads(RouteRecord.from_prediction(prediction(), DIGEST).to_json())
    assert not {"stream", "window", "abstained", "alarms", "seq", "prev"} & set(bare)
    window: Window = {"index": 3, "start": 1.5, "end": 3.0}
    record = RouteRecord.from_prediction(
        prediction(), DIGEST, stream="door", window=window, abstained=False, alarms=("load",)
    )
    said = {"stream": "door", "window": window, "abstained": False, "alarms": ["load"]}
    assert json.loads(record.to_json()) == {**bare, "time": record.time, **said}


def test_an_event_is_a_line_as_well(tmp_path: Path) -> None:
    with RouteLog(tmp_path / "log") as log:
        log.append(EventRecord.now("clip", clip="bad.mp4", error="bad.mp4: not a video"))
        log.append(EventRecord.now("dropped", stream="door", count=7))
    first, second = lines(tmp_path / "log")
    assert (first["event"], first["clip"], first["error"]) == ("clip", "bad.mp4", "bad.mp4: not a video")
    assert second.keys() == {"seq", "prev", "schema", "time", "event", "stream", "count"} and second["count"] == 7


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_say_is_refused_and_counted(tmp_path: Path, number: float) -> None:
    record = replace(RouteRecord.from_prediction(prediction(), DIGEST), margin=number)
    with RouteLog(tmp_path / "log") as log:
        with pytest.raises(HardrouteError, match="not finite"):
            log.append(record)
        assert (log.written, log.lost, log.seq) == (0, 1, 0)
    (line,) = lines(tmp_path / "log")
    assert (line["event"], line["lost"]) == ("lost", 1)


def test_a_record_too_long_for_a_line_is_refused(tmp_path: Path) -> None:
    with RouteLog(tmp_path / "log") as log:
        log.append(EventRecord.now("error", error="x" * (MAX_LINE - 200)))
        with pytest.raises(HardrouteError, match=f"too long for a line; {MAX_LINE} fit"):
            log.append(EventRecord.now("error", error="x" * MAX_LINE))
    assert max(map(len, (tmp_path / "log").read_bytes().splitlines(keepends=True))) <= MAX_LINE
    assert verify_log([tmp_path / "log"]).broken == 0

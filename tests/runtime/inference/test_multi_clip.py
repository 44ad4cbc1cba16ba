"""Whole videos: the mean over several routed clips, against the closed form of linear networks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hardroute import Engine, Prediction, VideoPrediction, decode_clips
from hardroute.cli import app as runtime_app
from hardroute.cli import app as training_app
from hardroute.runtime.datasets import ClipRow, ClipSet
from hardroute.runtime.errors import ClipError, DataError, HardrouteError
from hardroute.runtime.inference import Route, Timing
from hardroute.runtime.prediction import softmax
from hardroute.training.video_accuracy import evaluate_videos
from tests.support.bundles import CLASSES, CONTRACT, TinyBundle, make_bundle, write_video

SECONDED = CONTRACT.model_copy(update={"seconds": 0.5})
CLIPS = 5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("video") / "bundle", contract=SECONDED)


@pytest.fixture(scope="module")
def engine(tiny: TinyBundle) -> Engine:
    return Engine.load(tiny.root, threads=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"{n}.mp4", frames=40, seed=n) for n in range(6)]


def means(tiny: TinyBundle, video: Path, clips: int) -> np.ndarray:
    """(K,) the mean of the softmax of each clip's own expert, by hand."""
    frames = np.stack([clip.frames for clip in decode_clips(video, SECONDED, clips=clips)])
    powers = np.exp(tiny.logits(frames))
    return (powers / powers.sum(1, keepdims=True)).mean(0)


@pytest.mark.parametrize("clips", [2, CLIPS, 11])
def test_the_answer_is_the_mean_over_the_clips_each_by_its_own_expert(
    tiny: TinyBundle, engine: Engine, videos: list[Path], clips: int
) -> None:
    routes = set()
    for video in videos:
        found, wanted = engine.predict_video(video, clips), means(tiny, video, clips)
        np.testing.assert_allclose(found.probabilities, wanted, atol=1e-6)
        assert (found.index, found.label) == (wanted.argmax(), CLASSES[int(wanted.argmax())])
        assert found.probability == pytest.approx(wanted.max(), abs=1e-6)
        frames = np.stack([clip.frames for clip in decode_clips(video, SECONDED, clips=clips)])
        assert [clip.route.expert for clip in found.clips] == tiny.routes(frames).tolist()
        assert {clip.clip_sha256 for clip in found.clips} == {hashlib.sha256(video.read_bytes()).hexdigest()}
        routes |= {clip.route.expert for clip in found.clips}
    assert len(routes) > 1, "the clips must take different routes for this test to mean anything"


def test_one_clip_is_what_predict_answers(engine: Engine, videos: list[Path]) -> None:
    for video in videos:
        alone, found = engine.predict(video), engine.predict_video(video, 1)
        assert (found.label, found.index, found.probability) == (alone.label, alone.index, alone.probability)
        np.testing.assert_array_equal(found.probabilities, alone.probabilities)
        np.testing.assert_array_equal(found.clips[0].logits, alone.logits)
        np.testing.assert_array_equal(engine.predict_video(video, 3).clips[0].logits, alone.logits)


def test_windows_say_where_the_clips_lie(engine: Engine, videos: list[Path], tmp_path: Path) -> None:
    # 40 frames at 12 a second: the last window begins half a second before the end.
    end = 40 / 12
    wanted = [(start, start + 0.5) for start in np.linspace(0, end - 0.5, 3)]
    assert np.allclose(engine.predict_video(videos[0], 3).windows, wanted)
    short = write_video(tmp_path / "short.mp4", frames=3)
    found = engine.predict_video(short, 3)
    assert np.allclose(found.windows, [(0, 0.25)] * 3)
    np.testing.assert_array_equal(found.probabilities, engine.predict(short).probabilities)


def answers(logits: np.ndarray) -> list[Prediction]:
    routes = Route.batch(np.zeros((len(logits), 3), np.float32))
    return Prediction.batch(CLASSES, routes, logits, [Timing(0, 0, 0)] * len(logits))


def test_the_loudest_expert_does_not_decide() -> None:
    logits = np.array([[100, 0, 0], [0, 2, 0], [0, 2, 0]], np.float32)
    assert logits.mean(axis=0).argmax() == 0
    found = VideoPrediction.mean(CLASSES, answers(logits), [(0, 1)] * 3)
    np.testing.assert_allclose(found.probabilities, softmax(logits).mean(axis=0), atol=1e-7)
    assert found.index == 1


@given(st.data(), st.integers(1, 12))
def test_clips_that_agree_are_not_overruled(data: st.DataObject, clips: int) -> None:
    # What docs/embedding.md says of the certificate: a video all of whose clips hold, holds.
    logits = data.draw(st.lists(st.tuples(*[st.floats(-8, 8, width=32)] * 3), min_size=clips, max_size=clips))
    rows = np.array(logits, np.float32)
    winner = data.draw(st.integers(0, 2))
    rows[:, winner] = rows.max(axis=1) + np.float32(0.125)
    assert VideoPrediction.mean(CLASSES, answers(rows), [(0, 1)] * clips).index == winner


def test_a_bundle_for_whole_videos_has_one_clip_of_each(tmp_path: Path, videos: list[Path]) -> None:
    engine = Engine.load(make_bundle(tmp_path / "bundle").root, threads=1)
    assert engine.predict_video(videos[0], 1).label == engine.predict(videos[0]).label
    with pytest.raises(ClipError, match="whole video as one clip"):
        engine.predict_video(videos[0], 2)


def predict(*words: str | Path) -> list[str]:
    result = CliRunner().invoke(runtime_app, ["predict", *map(str, words)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout.splitlines()


def test_the_command_logs_a_line_for_each_clip_with_the_answer_of_the_video_beside_it(
    tiny: TinyBundle, engine: Engine, videos: list[Path], tmp_path: Path
) -> None:
    log = tmp_path / "routes.jsonl"
    header, *rows = predict(tiny.root, *videos[:2], "--clips", str(CLIPS), "--log", log)
    assert header.split()[:2] == ["clip", "label"] and len({len(row) for row in (header, *rows)}) == 1
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(rows) == 2 * (1 + CLIPS) and len(records) == 2 * CLIPS
    for n, video in enumerate(videos[:2]):
        found = engine.predict_video(video, CLIPS)
        first, *own = rows[n * (1 + CLIPS) : (n + 1) * (1 + CLIPS)]
        assert first.split()[:5] == [video.name, found.label, f"{found.probability:.3f}", "-", "-"]
        for index, (row, record, clip) in enumerate(zip(own, records[n * CLIPS :], found.clips, strict=False)):
            assert row.split()[4:7] == [clip.label, f"{clip.probability:.3f}", str(clip.route.expert)]
            assert (record["label"], record["expert"]) == (clip.label, clip.route.expert)
            assert record["window"]["index"] == index
            assert record["video"] == {
                "label": found.label, "probability": pytest.approx(found.probability), "clips": CLIPS
            }  # fmt: skip


def test_one_clip_is_shown_and_logged_as_ever(tiny: TinyBundle, videos: list[Path], tmp_path: Path) -> None:
    _, *rows = predict(tiny.root, videos[0], "--clips", "1", "--log", tmp_path / "log")
    record = json.loads((tmp_path / "log").read_text())
    assert len(rows) == 1 and not record.keys() & {"video", "window"}


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--clips", "2", "--abstain-below", "0.1"], "--abstain-below"), (["--clips", "2"], "whole video")],
)
def test_what_cannot_be_averaged_is_one_line(tmp_path: Path, videos: list[Path], words: list[str], says: str) -> None:
    root = make_bundle(tmp_path / "bundle").root
    result = CliRunner().invoke(
        runtime_app, ["predict", str(root), str(videos[0]), "--log", str(tmp_path / "l"), *words]
    )
    assert isinstance(result.exception, HardrouteError) and says in str(result.exception)
    assert not result.stdout and not (tmp_path / "l").exists()


def labelled(videos: list[Path], classes: tuple[str, ...] = CLASSES) -> ClipSet:
    rows = [ClipRow(path, path.name, classes[n % len(classes)], "test", path.name) for n, path in enumerate(videos)]
    return ClipSet("six", tuple(sorted(classes)), tuple(rows))


def test_evaluation_counts_videos_by_their_mean_and_by_their_first_clip(
    tiny: TinyBundle, engine: Engine, videos: list[Path]
) -> None:
    found = evaluate_videos(engine, labelled(videos), CLIPS)
    truth = [n % len(CLASSES) for n in range(len(videos))]
    by_mean = [int(means(tiny, video, CLIPS).argmax()) for video in videos]
    by_first = [int(means(tiny, video, 1).argmax()) for video in videos]
    assert by_mean != by_first, "or this test means nothing"
    assert (found["videos"].n, found["first"].n) == (len(videos), len(videos))
    assert found["videos"].successes == sum(a == b for a, b in zip(by_mean, truth, strict=True))
    assert found["first"].successes == sum(a == b for a, b in zip(by_first, truth, strict=True))
    assert sum(found["load"]) == pytest.approx(1) and len(found["load"]) == 3


def test_evaluation_of_other_classes_or_a_broken_video_is_refused(
    engine: Engine, videos: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="its classes are not those of the bundle"):
        evaluate_videos(engine, labelled(videos, ("left", "right", "down")), 2)
    (tmp_path / "x.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"six: .*x\.mp4"):
        evaluate_videos(engine, labelled([*videos, tmp_path / "x.mp4"]), 2)


def test_the_evaluate_command_says_both(tiny: TinyBundle, videos: list[Path]) -> None:
    folder = videos[0].parent
    lines = [f"{row.file},{row.label},test" for row in labelled(videos).rows]
    (folder / "manifest.csv").write_text("\n".join(["file,label,split", *lines]) + "\n")
    words = ["evaluate", str(tiny.root), "--data", str(folder), "--clips", "3"]
    shown = CliRunner().invoke(training_app, words)
    assert shown.exit_code == 0, shown.exception
    found = json.loads(CliRunner().invoke(training_app, [*words, "--json"]).stdout)
    assert found["clips"] == 3 and found["videos"]["n"] == 6
    assert f"by the mean of 3 clips: {100 * found['videos']['share']:.1f} %" in shown.stdout
    assert f"an audit judges: {100 * found['first']['share']:.1f} %" in shown.stdout

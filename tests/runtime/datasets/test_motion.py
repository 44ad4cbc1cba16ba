"""The procedural set: repeatable, complete or absent, and told apart by motion alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from hardroute.runtime.clips import ClipContract
from hardroute.runtime.datasets import load_clips, motion, motion_scene, open_set
from hardroute.runtime.datasets.motion import MotionSpec
from hardroute.runtime.errors import DataError

STATES = ("x", "y", "angle", "size")
CLASSES = tuple(motion_scene.CLASSES)
TINY = "motion:seed=3,train=2,val=0,test=1"


def tracks(label: str, count: int = 400) -> dict[str, np.ndarray]:
    """Each state of `count` clips, (count, FRAMES)."""
    drawn = [motion_scene.track(label, np.random.default_rng([7, CLASSES.index(label), i])) for i in range(count)]
    return {name: np.stack([getattr(track, name) for track in drawn]) for name in STATES}


def steps(states: np.ndarray) -> np.ndarray:
    """Change per frame on the circle, in (-1/2, 1/2]."""
    return (np.diff(states, axis=1) + 0.5) % 1.0 - 0.5


@pytest.mark.parametrize("label", CLASSES)
def test_a_single_frame_is_distributed_alike_in_every_class(label: str) -> None:
    states = tracks(label)
    for name in STATES:
        for frame in (0, 5, motion_scene.FRAMES - 1):
            # 96 comparisons in all: a true uniform falls below this level in about one run of a hundred, and
            # the seed is fixed.
            assert kstest(states[name][:, frame], "uniform").pvalue > 1e-4, (name, frame)
    # Nor do two states together tell more than each: independent at every instant.
    correlation = np.corrcoef([states[name][:, 9] for name in STATES])
    assert np.abs(correlation - np.eye(4)).max() < 0.25


@pytest.mark.parametrize("label", CLASSES)
def test_a_class_moves_its_own_state_one_way_at_a_steady_rate(label: str) -> None:
    moving, direction = motion_scene.CLASSES[label]
    states = tracks(label, 50)
    for name in STATES:
        change = steps(states[name])
        if name == moving:
            assert (change * direction > 0).all() and np.ptp(change, axis=1).max() < 1e-9
        else:
            assert np.abs(change).max() == 0


@pytest.mark.parametrize(
    "one, other",
    [
        ("slide-left", "slide-right"),
        ("slide-up", "slide-down"),
        ("turn-clockwise", "turn-anticlockwise"),
        ("grow", "shrink"),
    ],
)
def test_a_class_played_backwards_is_its_opposite(one: str, other: str) -> None:
    name = motion_scene.CLASSES[one][0]
    backwards = steps(tracks(one)[name][:, ::-1])[:, 0]
    assert ks_2samp(backwards, steps(tracks(other)[name])[:, 0]).pvalue > 1e-4
    assert ks_2samp(backwards, steps(tracks(one)[name])[:, 0]).pvalue < 1e-9


def shape_mask(frame: np.ndarray) -> np.ndarray:
    """Pixels unlike the frame's commonest grey, cleaned of specks: where the shape is."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    apart = np.abs(grey.astype(float) - np.median(grey))
    return cv2.morphologyEx((apart > 45).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))


def torus_centre(mask: np.ndarray) -> np.ndarray:
    """Circular mean (x, y) in pixels of a mask that may wrap around the edges."""
    turns = [np.exp(2j * np.pi * places / len(mask)).mean() for places in np.nonzero(mask)[::-1]]
    return np.angle(turns) / (2 * np.pi) * len(mask)


def direction_seen(frames: np.ndarray) -> np.ndarray:
    """Median step (x, y, radians clockwise, relative area) between frames, seen in the pixels alone."""
    seen = []
    for before, after in zip(frames, frames[2:], strict=False):
        masks = [shape_mask(frame) for frame in (before, after)]
        centres = [torus_centre(mask) for mask in masks]
        size = len(masks[0])
        centred = [
            np.roll(mask, np.rint(size / 2 - centre[::-1]).astype(int), (0, 1))
            for mask, centre in zip(masks, centres, strict=True)
        ]
        middle = (size / 2, size / 2)
        turns = range(-40, 41, 4)
        # getRotationMatrix2D turns anticlockwise for positive angles.
        overlap = [
            (cv2.warpAffine(centred[0], cv2.getRotationMatrix2D(middle, -turn, 1), (size, size)) & centred[1]).sum()
            for turn in turns
        ]
        shift = (centres[1] - centres[0] + size / 2) % size - size / 2
        area = np.log(max(1, int(masks[1].sum())) / max(1, int(masks[0].sum())))
        seen.append([*shift, turns[int(np.argmax(overlap))], area])
    return np.median(seen, axis=0)


def test_the_pixels_move_as_the_label_says() -> None:
    """Measured on decoded-size pictures with no knowledge of the renderer."""
    axis = {"x": 0, "y": 1, "angle": 2, "size": 3}
    right = {
        label: np.mean(
            [np.sign(direction_seen(motion.clip_frames(5, "test", label, i))[axis[moving]]) == way for i in range(8)]
        )
        for label, (moving, way) in motion_scene.CLASSES.items()
    }
    assert min(right.values()) >= 0.75 and np.mean(list(right.values())) > 0.85, right


def test_frames_are_a_function_of_seed_split_class_and_index() -> None:
    frames = motion.clip_frames(0, "train", "grow", 3)
    assert frames.shape == (24, 64, 64, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, motion.clip_frames(0, "train", "grow", 3))
    others = [
        (1, "train", "grow", 3),
        (0, "val", "grow", 3),
        (0, "train", "shrink", 3),
        (0, "train", "grow", 4),
    ]
    assert not any(np.array_equal(frames, motion.clip_frames(*other)) for other in others)


def test_no_perturbation_within_the_audits_budget_hides_a_shape() -> None:
    for i in range(10):
        frame = motion.clip_frames(1, "train", CLASSES[i % len(CLASSES)], i)[0]
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        shape = grey[shape_mask(frame) > 0]
        assert len(shape) > 60 and abs(np.median(shape) - np.median(grey)) > 5 * 8


def test_a_rendered_set_opens_and_a_smaller_one_is_its_beginning(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    folder = motion.render(TINY, tmp_path / "tiny", progress=lambda *call: done.append(call))
    clips = open_set(folder)
    assert clips.classes == tuple(sorted(CLASSES)) and len(clips) == 24
    assert [len(clips.split(name)) for name in ("train", "test")] == [16, 8]
    assert len({r.group for r in clips.rows}) == 24 and done[-1] == (24, 24)
    with pytest.raises(DataError, match="test, train"):
        clips.split("val")
    smaller = open_set(motion.render(MotionSpec(seed=3, train=1, val=0, test=1), tmp_path / "smaller"))
    for r in smaller.rows:
        assert r.path.read_bytes() == (folder / r.file).read_bytes()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "smaller", tmp_path / "tiny"]


def test_decoded_clips_are_the_rendered_frames(tmp_path: Path) -> None:
    clips = open_set(motion.render(TINY, tmp_path / "tiny")).split("test")
    arrays = load_clips(clips, ClipContract(frames=24, height=64, width=64))
    for frames, r in zip(arrays.frames, clips.rows, strict=True):
        drawn = motion.clip_frames(3, "test", r.label, 0)
        # JPEG blurs the grain (up to 8 levels) but neither moves nor recolours anything.
        assert np.abs(frames.astype(float) - drawn).mean() < 8
        blurred = [np.stack([cv2.blur(f, (7, 7)) for f in clip]).astype(float) for clip in (frames, drawn)]
        assert np.abs(blurred[0] - blurred[1]).mean() < 2


def test_the_cache_renders_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDROUTE_CACHE", str(tmp_path / "cache"))
    first = open_set(TINY)
    assert first.name == TINY and all(r.path.is_relative_to(tmp_path / "cache") for r in first.rows)
    monkeypatch.setattr(motion, "render", lambda *_: pytest.fail("rendered again"))
    assert open_set(TINY) == first
    monkeypatch.setattr(motion, "GENERATOR", -1)
    with pytest.raises(pytest.fail.Exception):
        open_set(TINY)


def test_an_interrupted_rendering_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDROUTE_CACHE", str(tmp_path))

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_set(TINY, progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert len(open_set(TINY)) == 24


def test_a_disk_that_runs_full_leaves_no_set_behind(tmp_path: Path) -> None:
    """A process that may write 8000 bytes a file, less than a clip: OpenCV loses the rest without a word."""
    code = (
        "import resource, signal, sys; from hardroute.runtime.datasets import motion\n"
        "from hardroute.runtime.errors import DataError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))\n"
        "try: motion.render('motion:train=0,val=0,test=1', sys.argv[1])\n"
        "except DataError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "set")], capture_output=True, text=True)
    assert "was not written to its end; free some space" in done.stdout and done.stdout.count("\n") == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_two_that_render_the_same_set_at_once_both_get_it(tmp_path: Path) -> None:
    out = tmp_path / "set"
    spec = MotionSpec(train=1, val=0, test=0)

    def meanwhile(done: int, total: int) -> None:
        if done == 1 and not out.exists():
            motion.render(spec, out)

    assert motion.render(spec, out, progress=meanwhile) == out
    assert len(open_set(out)) == 8 and list(tmp_path.iterdir()) == [out]


def test_an_existing_folder_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    with pytest.raises(DataError, match="already there"):
        motion.render(TINY, tmp_path / "mine")
    with pytest.raises(DataError, match="cannot be written"):
        motion.render(TINY, tmp_path / "mine" / "file" / "below")
    assert (tmp_path / "mine" / "file").read_text() == "kept" and len(list(tmp_path.iterdir())) == 1


def test_a_spec_names_only_what_differs() -> None:
    assert MotionSpec.parse("motion") == MotionSpec(seed=0, train=250, val=25, test=40)
    assert MotionSpec.parse(MotionSpec(1, 2, 3, 4).text) == MotionSpec(1, 2, 3, 4)
    assert MotionSpec.parse("motion:test=5, seed=9") == MotionSpec(seed=9, test=5)
    assert len({MotionSpec.parse(t).key for t in ("motion", "motion:seed=1", "motion:test=5")}) == 3


NOT_UNDERSTOOD = ("tests=5", "test", "test=-1", "test=x", "seed=\u0663", "test=1,test=2", "test=999999")


@pytest.mark.parametrize("settings", [*NOT_UNDERSTOOD, "train=0,val=0,test=0"])
def test_a_spec_that_is_not_understood_is_refused(settings: str) -> None:
    with pytest.raises(DataError, match="motion"):
        open_set(f"motion:{settings}")

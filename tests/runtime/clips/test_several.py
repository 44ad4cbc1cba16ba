"""Several clips of a video: where their windows lie, and that the video is decoded once for them."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardroute.runtime.clips import ClipContract, DecodedClip, Limits, decode, decode_clips
from hardroute.runtime.clips.sampling import MAX_CLIPS, Spread
from hardroute.runtime.datasets import decode_cache as cache_module
from hardroute.runtime.datasets import load_clips
from hardroute.runtime.datasets.dataset import ClipRow, ClipSet
from hardroute.runtime.datasets.decode_cache import ClipCache
from hardroute.runtime.errors import ClipError, DataError
from tests.support.videos import grey_frames, indices_shown, write, write_avi, write_variable_rate

CONTRACT = ClipContract(frames=4, height=16, width=16, resize="stretch", seconds=1.0)


def shown(starts: list[int], window: int, clips: int, duration: int) -> list[list[int]]:
    """The closed form in exact arithmetic (milliseconds): windows from the start to the end, equally far apart."""
    free = max(0, duration - window)
    begins = [Fraction(free * j, clips - 1) if clips > 1 else Fraction(0) for j in range(clips)]
    centres = [[begin + Fraction((2 * k + 1) * window, 8) for k in range(4)] for begin in begins]
    return [[max(i for i, start in enumerate(starts) if start <= at) for at in row] for row in centres]


@pytest.mark.parametrize("clips", [1, 2, 3, 7])
@pytest.mark.parametrize("short", [0, 1])
def test_windows_lie_evenly_and_the_video_is_read_once(tmp_path: Path, work: list[str], clips: int, short: int) -> None:
    path = write_avi(tmp_path / "a.avi", list(grey_frames(43)), promised=43 + short)
    found = decode_clips(path, CONTRACT, clips=clips, trusted=True)
    assert [indices_shown(clip.frames) for clip in found] == shown([100 * i for i in range(43)], 1000, clips, 4300)
    assert [clip.start for clip in found] == pytest.approx([3.3 * j / max(clips - 1, 1) for j in range(clips)])
    assert work.count("pass") == 1


def test_a_variable_rate_is_followed(tmp_path: Path) -> None:
    starts = [3 * i * i for i in range(40)]
    path = write_variable_rate(tmp_path / "slowing.mkv", grey_frames(40), starts)
    found = decode_clips(path, CONTRACT, clips=3)
    # The file was written at 1,000 frames a second, so its last frame lasts a millisecond.
    assert [indices_shown(clip.frames) for clip in found] == shown(starts, 1000, 3, starts[-1] + 1)


@pytest.mark.parametrize("promised", [0, 3, 40, 400])
def test_a_header_that_miscounts_does_not_shift_them(tmp_path: Path, promised: int) -> None:
    path = write_avi(tmp_path / "a.avi", list(grey_frames(43)), promised=promised)
    found = decode_clips(path, CONTRACT, clips=3, allow_short=True)
    assert [indices_shown(clip.frames) for clip in found] == shown([100 * i for i in range(43)], 1000, 3, 4300)


def test_the_first_of_several_is_the_clip_of_the_contract(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 24, 32, 3), np.uint8)
    path = write(tmp_path / "a.avi", noise)
    alone = decode(path, CONTRACT)
    for clips in (1, 2, 5):
        first, *_ = decode_clips(path, CONTRACT, clips=clips)
        assert np.array_equal(first.frames, alone.frames) and first.start == 0


def test_a_video_shorter_than_a_window_gives_the_same_clip_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", grey_frames(5))
    found = decode_clips(path, CONTRACT, clips=3)
    assert [indices_shown(clip.frames) for clip in found] == [[1, 3, 4, 4]] * 3
    assert [clip.start for clip in found] == [0, 0, 0]


@given(st.floats(0.01, 100), st.floats(0, 500), st.integers(1, MAX_CLIPS), st.integers(1, 32))
def test_windows_stay_in_the_video_and_cover_its_ends(seconds: float, duration: float, clips: int, frames: int) -> None:
    spread = Spread(seconds, clips)
    starts, times = spread.starts(duration), spread.times(frames, duration)
    assert times.shape == (clips, frames)
    assert starts[0] == 0 and (np.diff(starts) >= 0).all()
    assert np.allclose(np.diff(starts), starts[-1] / max(clips - 1, 1))
    if clips > 1:
        assert starts[-1] + seconds == pytest.approx(max(duration, seconds))


@pytest.mark.parametrize(
    ("contract", "clips", "says"),
    [
        (CONTRACT.model_copy(update={"seconds": None}), 2, "whole video as one clip"),
        (CONTRACT, 0, "1 to 64"),
        (CONTRACT, MAX_CLIPS + 1, "1 to 64"),
    ],
)
def test_what_cannot_be_cut_is_refused_before_the_file_is_read(
    tmp_path: Path, contract: ClipContract, clips: int, says: str
) -> None:
    with pytest.raises(ClipError, match=says):
        decode_clips(tmp_path / "absent.avi", contract, clips=clips)


def test_frames_held_stay_few_whatever_the_length(tmp_path: Path, work: list[str]) -> None:
    decode_clips(write(tmp_path / "a.avi", grey_frames(50, 16, 16)), CONTRACT, clips=3, trusted=True)
    assert work.count("fit") <= 2 * 12 + 2


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips each call of the real decoder was asked for."""
    asked: list[int] = []

    def counting(path: Path, contract: ClipContract, limits: Limits, *, clips: int) -> tuple[DecodedClip, ...]:
        asked.append(clips)
        return decode_clips(path, contract, limits, clips=clips)

    monkeypatch.setattr(cache_module, "decode_clips", counting)
    return asked


def test_the_cache_keeps_them_together_and_apart_from_one(tmp_path: Path, decoded: list[int]) -> None:
    path, cache = write(tmp_path / "a.avi", grey_frames(30)), ClipCache(tmp_path / "cache")
    plain = decode_clips(path, CONTRACT, clips=3)
    for _ in range(2):
        kept = cache.decode_clips(path, CONTRACT, clips=3)
        for one, other in zip(kept, plain, strict=True):
            assert np.array_equal(one.frames, other.frames)
            assert {**vars(one), "frames": 0} == {**vars(other), "frames": 0}
    assert decoded == [3]
    assert np.array_equal(cache.decode(path, CONTRACT).frames, plain[0].frames)
    cache.decode_clips(path, CONTRACT, clips=3)
    assert decoded == [3, 1]


@pytest.fixture
def two_videos(tmp_path: Path) -> ClipSet:
    paths = [write(tmp_path / f"{name}.avi", grey_frames(frames)) for name, frames in (("a", 30), ("b", 5))]
    rows = tuple(ClipRow(path, path.name, label, "train", path.name) for path, label in zip(paths, "yx", strict=True))
    return ClipSet("two", ("x", "y"), rows)


def test_a_set_holds_the_clips_of_a_video_side_by_side(two_videos: ClipSet) -> None:
    arrays = load_clips(two_videos, CONTRACT, per_video=3)
    assert (len(arrays.frames), arrays.videos, arrays.per_video) == (6, 2, 3)
    assert arrays.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert arrays.files == ("a.avi",) * 3 + ("b.avi",) * 3
    for i, row in enumerate(two_videos.rows):
        wanted = decode_clips(row.path, CONTRACT, clips=3)
        assert np.array_equal(arrays.frames[3 * i : 3 * i + 3], [clip.frames for clip in wanted])
        assert arrays.sha256[3 * i : 3 * i + 3] == (wanted[0].sha256,) * 3


def test_more_clips_than_memory_are_refused_before_any_is_decoded(
    two_videos: ClipSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = 6 * 4 * 16 * 16 * 3
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": memory, "SC_PAGE_SIZE": 1}.__getitem__)
    assert len(load_clips(two_videos, CONTRACT, per_video=3).labels) == 6
    with pytest.raises(DataError, match=r"two: 8 clips take .* GiB"):
        load_clips(two_videos, CONTRACT, per_video=4, decoder=None)  # type: ignore[arg-type]

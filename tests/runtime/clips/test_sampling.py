"""Sampling by timestamp against its closed form, and clocks that cannot be believed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardroute.runtime.clips import ClipContract, decode
from hardroute.runtime.clips.sampling import (
    Clock,
    Forecast,
    Spread,
    frames_on_display,
    sample_times,
    usable_fps,
)
from tests.support.videos import grey_frames, indices_shown, write, write_avi, write_variable_rate

CONTRACT = {"height": 16, "width": 16, "resize": "stretch"}


def shown(starts: list[int], frames: int, window: int) -> list[int]:
    """The closed form in exact arithmetic (milliseconds): the last frame started by each part's centre."""
    centres = [Fraction((2 * k + 1) * window, 2 * frames) for k in range(frames)]
    return [max(i for i, start in enumerate(starts) if start <= centre) for centre in centres]


@given(
    steps=st.lists(st.integers(1, 500), max_size=40),
    frames=st.integers(1, 32),
    window=st.integers(1, 20_000),
)
def test_frames_on_display_is_the_closed_form(steps: list[int], frames: int, window: int) -> None:
    starts = [0, *np.cumsum(steps, dtype=int).tolist()]
    got = frames_on_display(np.array(starts) / 1000, sample_times(frames, window / 1000))
    assert got.tolist() == shown(starts, frames, window)


@given(
    steps=st.lists(st.integers(1, 500), max_size=40),
    frames=st.integers(1, 32),
    durations=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 20_000)),
    spread=st.just(Spread()) | st.builds(Spread, st.floats(0.01, 20), st.integers(1, 6)),
)
def test_a_forecast_holds_for_every_duration_between_its_bounds(
    steps: list[int], frames: int, durations: tuple[int, int, int], spread: Spread
) -> None:
    shortest, duration, longest = (milliseconds / 1000 for milliseconds in sorted(durations))
    starts = np.array([0, *np.cumsum(steps, dtype=int)]) / 1000
    ends = [*starts[1:], np.inf]
    forecast = Forecast.over(frames, shortest, longest, spread)
    likely = {i for i, (start, end) in enumerate(zip(starts, ends, strict=True)) if forecast.shows(start, end)}
    assert set(frames_on_display(starts, spread.times(frames, duration)).flatten().tolist()) <= likely


def test_a_forecast_of_a_window_that_is_known_names_only_what_is_shown() -> None:
    forecast = Forecast.over(4, 2.0, 2.0)  # centres 0.25, 0.75, 1.25, 1.75
    assert [forecast.shows(i / 10, (i + 1) / 10) for i in range(20)] == [i in (2, 7, 12, 17) for i in range(20)]


@pytest.mark.parametrize("short", [0, 1])
def test_one_pass_converts_few_frames_also_where_the_last_one_is_missing(
    tmp_path: Path, work: list[str], short: int
) -> None:
    path = write_avi(tmp_path / "a.avi", list(grey_frames(50)), promised=50 + short)
    clip = decode(path, ClipContract(frames=8, **CONTRACT), trusted=True)
    assert indices_shown(clip.frames) == shown([100 * i for i in range(50)], 8, 5000)
    assert work.count("pass") == 1 and work.count("fit") <= 2 * 8 + 2


def test_a_variable_rate_file_is_sampled_by_its_timestamps(tmp_path: Path) -> None:
    starts = [3 * i * i for i in range(40)]
    path = write_variable_rate(tmp_path / "slowing.mkv", grey_frames(40), starts)
    contract = ClipContract(frames=16, **CONTRACT)
    # The file was written at 1,000 frames a second, so its last frame lasts a millisecond.
    assert indices_shown(decode(path, contract).frames) == shown(starts, 16, starts[-1] + 1)
    windowed = contract.model_copy(update={"seconds": 1.5})
    assert indices_shown(decode(path, windowed).frames) == shown(starts, 16, 1500)


@pytest.mark.parametrize("frames", [1, 4, 12, 24, 48, 100])
@pytest.mark.parametrize("name", ["a.avi", "a.mkv"])
def test_a_steady_file_is_sampled_evenly(tmp_path: Path, frames: int, name: str) -> None:
    path = write(tmp_path / name, grey_frames(24), fps=10)
    clip = decode(path, ClipContract(frames=frames, **CONTRACT))
    assert indices_shown(clip.frames) == shown([100 * i for i in range(24)], frames, 2400)
    assert clip.seconds == pytest.approx(2.4)


def test_a_video_shorter_than_its_window_holds_its_last_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", grey_frames(5), fps=10)
    clip = decode(path, ClipContract(frames=10, seconds=1.0, **CONTRACT))
    assert indices_shown(clip.frames) == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4]
    assert (clip.frames_decoded, clip.frames_expected) == (5, 5)


def test_a_window_reads_no_further_than_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", grey_frames(40), fps=10)
    clip = decode(path, ClipContract(frames=5, seconds=1.0, **CONTRACT))
    assert indices_shown(clip.frames) == [1, 3, 5, 7, 9]
    assert (clip.frames_decoded, clip.frames_expected) == (10, 10)


@pytest.mark.parametrize("promised", [0, 1, 3, 21])
def test_a_header_that_miscounts_does_not_shift_the_samples(tmp_path: Path, promised: int) -> None:
    path = write_avi(tmp_path / "a.avi", list(grey_frames(20)), promised=promised)
    clip = decode(path, ClipContract(frames=10, **CONTRACT))
    assert indices_shown(clip.frames) == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert clip.frames_decoded == 20


NAN = float("nan")


def ticked(stamps: list[float], fps: float) -> list[float]:
    clock = Clock(fps)
    return [clock.tick(stamp) for stamp in stamps]


@pytest.mark.parametrize(
    "stamps, starts",
    [
        ([2.0, 2.1, 2.3], [0, 0.1, 0.3]),
        # One frame without a usable stamp.
        ([2.0, 2.1, 0.0, 2.3], [0, 0.1, 0.2, 0.3]),
        ([2.0, 2.1, NAN, 2.3], [0, 0.1, 0.2, 0.3]),
        ([NAN, 2.0, 2.1], [0, 0.1, 0.2]),
        # A clock that stands still, or runs backwards, is none.
        ([5.0] * 4, [0, 0.1, 0.2, 0.3]),
        ([5.0, 4.0, 3.0, 2.0], [0, 0.1, 0.2, 0.3]),
        ([NAN] * 4, [0, 0.1, 0.2, 0.3]),
        # A clock that jumps back goes on from there.
        ([5.0, 5.1, 0.0, 0.1, 0.4], [0, 0.1, 0.2, 0.3, 0.6]),
        ([7.0, 7.1, 7.0, 7.1, 7.2], [0, 0.1, 0.2, 0.3, 0.4]),
        # Twins: the second is what a player shows from then on, and nothing after it is put off.
        ([0.0, 0.1, 0.1, 0.2, 0.3], [0, 0.1, 0.2, 0.2, 0.3]),
        # A clock that leaps and stays there.
        ([0.0, 0.1, 50.0, 50.1], [0, 0.1, 50.0, 50.1]),
    ],
)
def test_the_rule_for_clocks(stamps: list[float], starts: list[float]) -> None:
    assert ticked(stamps, fps=10) == pytest.approx(starts, abs=1e-9)


@given(st.lists(st.floats() | st.floats(0, 10), min_size=1, max_size=60))
def test_starts_increase_from_zero_whatever_the_stamps(stamps: list[float]) -> None:
    starts = ticked(stamps, fps=30)
    assert starts[0] == 0 and np.isfinite(starts).all() and (np.diff(starts) > 0).all()


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=60), st.integers(-(10**6), 10**6))
def test_good_stamps_are_kept(gaps: list[int], origin: int) -> None:
    stamps = [(origin + int(gap)) / 1000 for gap in np.cumsum([0, *gaps])]
    assert ticked(stamps, fps=25) == pytest.approx([stamp - stamps[0] for stamp in stamps], abs=1e-6)


def test_a_frame_rate_no_camera_has_is_replaced() -> None:
    assert usable_fps(29.97) == 29.97
    assert usable_fps(0.0) == usable_fps(None) == usable_fps(float("nan")) == usable_fps(90_000.0) == 25.0

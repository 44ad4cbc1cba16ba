"""The soak: its source goes on where its file ends, and memory that keeps growing is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.measure import soak as soaks
from tests.measure.soak import Endless, Soak, app
from tests.support.bundles import make_bundle
from tests.support.videos import grey_frames, indices_shown, write


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write(tmp_path / "video.avi", grey_frames(7), fps=10)


def test_an_endless_video_repeats_its_file_while_the_clock_goes_on(video: Path) -> None:
    source = Endless(video, seconds=2.0)
    read = list(iter(source.read, None))
    assert [stamp for stamp, _ in read] == pytest.approx([n / 10 for n in range(20)])
    assert indices_shown(np.stack([frame for _, frame in read])) == [n % 7 for n in range(20)]


def test_growth_counts_from_the_twelfth_part_and_cost_by_tenths() -> None:
    times = np.arange(1.0, 121.0)
    memory = np.where(times <= 9, 50.0, 100.0) + np.where(times == 120, 6.0, 0.0)
    found = Soak(times, memory, cpu=np.cumsum(np.where(times <= 60, 0.002, 0.004)), errors=0, lines=120)
    assert found.times[found.settled()] == 10
    assert found.growth() == pytest.approx(6.0)
    assert found.cost(0) == pytest.approx(2.0) and found.cost(9) == pytest.approx(4.0)


@pytest.mark.parametrize("leaks", [False, True])
def test_the_command_answers_every_window_and_fails_on_a_leak(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch, leaks: bool
) -> None:
    sizes = iter(np.linspace(100, 110 if leaks else 104, 1000))
    monkeypatch.setattr(soaks, "resident", lambda: next(sizes) if leaks else 100.0)
    bundle = make_bundle(tmp_path / "tiny").root
    done = CliRunner().invoke(app, [str(bundle), "--minutes", "15", "--video", str(video)])
    assert "900 windows of 2 s, one every 1 s; 900 lines" in done.stdout, done.output
    assert done.exit_code == int(leaks) and ("FAILED" in done.stdout) == leaks

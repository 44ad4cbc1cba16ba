"""Training on several clips of each video: which one a pass draws, and that everything else stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hardroute.cli import app
from hardroute.runtime.clips import ClipContract, to_network
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import HardrouteError
from hardroute.training.loop.batches import batches
from hardroute.training.loop.trainer import Trainer
from hardroute.training.run import Run, RunRecord
from hardroute.training.settings import FitSettings, settings_from
from tests.support.training import SMALL, Silent, clip_arrays, two_signals

VIDEOS, CLIPS = 10, 3


def numbered() -> ClipArrays:
    """Clip j of video i is grey of the level 3 i + j, and its label i."""
    levels = np.arange(VIDEOS * CLIPS, dtype=np.uint8)[:, None, None, None, None]
    frames = np.broadcast_to(levels, (VIDEOS * CLIPS, 2, 4, 4, 3)).copy()
    return replace(clip_arrays(frames, np.repeat(np.arange(VIDEOS), CLIPS)), per_video=CLIPS)


def drawn(clips: ClipArrays, seed: int, size: int = 2) -> list[int]:
    """Levels of the clips that a pass takes, in its order; their labels are checked on the way."""
    levels: list[int] = []
    for x, y in batches(clips, size, "cpu", torch.Generator().manual_seed(seed)):
        here = (x[:, 0, 0, 0, 0] * 255).round().long()
        assert torch.equal(here // CLIPS, y)
        levels += here.tolist()
    return levels


def test_a_pass_takes_one_clip_of_each_video() -> None:
    assert sorted(level // CLIPS for level in drawn(numbered(), seed=0)) == list(range(VIDEOS))


def test_the_same_seed_draws_the_same_and_many_draw_all() -> None:
    passes = [drawn(numbered(), seed) for seed in range(40)]
    assert passes == [drawn(numbered(), seed) for seed in range(40)]
    counts = np.bincount(np.concatenate(passes), minlength=VIDEOS * CLIPS)
    # 40 draws of 1 in 3 for each video: a mean of 13.3 with a deviation of 3.
    assert counts.min() >= 3 and counts.max() <= 26


def test_without_an_order_every_clip_comes_once_in_its_place() -> None:
    found = torch.cat([x for x, _ in batches(numbered(), 4, "cpu")])
    assert torch.equal(found, torch.from_numpy(to_network(numbered().frames)))


def test_one_clip_per_video_draws_nothing_from_the_order() -> None:
    clips = replace(numbered(), per_video=1)
    order, bare = (torch.Generator().manual_seed(5) for _ in range(2))
    list(batches(clips, 4, "cpu", order))
    torch.randperm(len(clips.labels), generator=bare)
    assert torch.equal(order.get_state(), bare.get_state())


def train(root: Path, reporter: Silent | None = None, **settings: Any) -> Run:
    fit = FitSettings(**{**SMALL, "seconds": 1.0, "clips_per_video": 3, **settings})
    run = (
        Run.open(root)
        if (root / "run.json").exists()
        else Run.create(root, RunRecord(settings=fit, classes=("a", "b"), tools={}))
    )
    Trainer(run, replace(two_signals(48, 0), per_video=3), two_signals(8, 1), reporter or Silent()).go()
    return run


@pytest.mark.parametrize("stop", [(1, "router", 2), (2, "experts", 1)])
def test_a_run_killed_and_resumed_draws_the_same_clips(tmp_path: Path, stop: tuple[int, str, int]) -> None:
    through = train(tmp_path / "through", epochs=2).load_resume()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", Silent(stop), epochs=2)
    found = train(tmp_path / "killed", epochs=2).load_resume()
    assert found.keys() == through.keys()
    assert all(torch.equal(found[name], through[name]) for name in through)


def test_an_epoch_has_the_batches_of_the_videos_not_of_the_clips(tmp_path: Path) -> None:
    seen = []

    class Counting(Silent):
        def batch(self, epoch: int, step: str, done: int, total: int, loss: float, progress: float) -> None:
            seen.append((done, total))

    train(tmp_path, Counting(), epochs=1, method="plain")
    assert seen == [(1, 2), (2, 2)]


def test_the_settings_make_the_contract() -> None:
    assert settings_from({"data": "x"}).contract == ClipContract()
    assert settings_from({"data": "x", "seconds": 2.5}).contract.seconds == 2.5


def test_several_clips_of_whole_videos_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    words = ["fit", "--data", str(tmp_path / "absent"), "--out", str(tmp_path / "run"), "--clips-per-video", "2"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, HardrouteError) and "--seconds" in str(result.exception)
    assert not list(tmp_path.iterdir())

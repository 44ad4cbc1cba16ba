"""Averaged weights: what they are the mean of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from hardroute.runtime.clips import to_network
from hardroute.training.loop import Trainer
from hardroute.training.loop.optimiser import AverageUpdate
from tests.support.training import Silent, new_run, train, two_signals


def averaged(decay: float, values: list[float]) -> float:
    """The average of a weight that takes the values one after the other, having begun at a million."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1e6)
    average = AveragedModel(model, multi_avg_fn=AverageUpdate(decay), use_buffers=True)
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    return average.module.get_parameter("weight").item()


def test_what_the_weights_were_before_the_first_step_does_not_count() -> None:
    for count in (1, 2, 7, 300):
        assert averaged(0.995, [3.0] * count) == pytest.approx(3.0)


def test_the_mean_forgets_the_first_steps_of_a_short_run() -> None:
    # 30 steps at 0 and 30 at 1: with one decay of 0.995 from the start it would be 0.14.
    assert averaged(0.995, [0.0] * 30 + [1.0] * 30) > 0.99


def test_a_long_run_has_the_decay_that_was_asked_for() -> None:
    before = averaged(0.9, [0.0] * 200)
    assert before == 0.0
    assert averaged(0.9, [0.0] * 200 + [1.0]) == pytest.approx(0.1)


def test_without_averaging_it_is_the_last_weights() -> None:
    assert averaged(0.0, [0.3, 0.1, 0.7]) == torch.tensor(0.7).item()


def test_the_model_that_is_exported_follows_a_run_of_few_steps(tmp_path: Path) -> None:
    clips = two_signals(8, 0)
    run = new_run(tmp_path, method="plain", epochs=60, batch=32, average=0.995, validate_every=60)
    Trainer(run, clips, clips, Silent()).go()
    x, y = torch.from_numpy(to_network(clips.frames)), torch.from_numpy(clips.labels)
    assert float((run.load_best()(x).argmax(1) == y).double().mean()) == 1


def test_a_mixture_can_be_trained_without_averaging(tmp_path: Path) -> None:
    run = train(tmp_path, method="at-m", epochs=1, average=0.0)
    tensors = run.load_resume()
    for name, value in run.load_best().state_dict().items():
        assert torch.equal(value, tensors[f"model:{name}"]), name

"""What goes wrong is said while it happens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hardroute.models import VideoMoE
from hardroute.training.loop.monitor import PATIENCE, Monitor, TrainingError
from tests.training.loop.test_trainer import seen


class Fixed(nn.Module):
    """Sends all clips to expert `self.only`, or, where it is None, to all experts in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.only: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        index = torch.arange(len(x)) % 4 if self.only is None else torch.full((len(x),), self.only)
        return nn.functional.one_hot(index, 4).float()


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 2)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def router() -> Fixed:
    return Fixed()


@pytest.fixture
def monitor(router: Fixed, said: list[str]) -> Monitor:
    monitor = Monitor(VideoMoE(router, [Constant() for _ in range(4)]), said.append)
    monitor.begin(3)
    return monitor


def batch(router: Fixed) -> None:
    router(torch.zeros(8, 3, 1, 2, 2))


def test_a_collapse_is_said_within_the_epoch_and_once(monitor: Monitor, router: Fixed, said: list[str]) -> None:
    batch(router)
    monitor.batch(True)
    assert not said
    router.only = 2
    for _ in range(60):
        batch(router)
        monitor.batch(True)
    assert len(said) == 1
    assert said[0].startswith("epoch 3: the router is collapsing (load 0.0") and "raise balance" in said[0]
    monitor.begin(4)
    monitor.batch(True)
    assert said[1].startswith("epoch 4: ")


def test_passes_in_eval_mode_are_not_training(monitor: Monitor, router: Fixed, said: list[str]) -> None:
    router.eval()
    router.only = 2
    for _ in range(60):
        batch(router)
        monitor.batch(True)
    assert not said


def test_a_batch_that_moved_nothing_is_said_and_counted(monitor: Monitor, said: list[str]) -> None:
    monitor.batch(False)
    assert "epoch 3: a loss or a gradient is not finite" in said[0] and "lower lr" in said[0]
    monitor.batch(False)
    monitor.batch(True)
    assert (len(said), monitor.skipped) == (1, 2)
    monitor.begin(4)
    assert monitor.skipped == 0


def test_a_run_whose_batches_keep_failing_stops(monitor: Monitor) -> None:
    for moved in [*[False] * (PATIENCE - 1), True, *[False] * (PATIENCE - 1)]:
        monitor.batch(moved)
    monitor.begin(4)
    with pytest.raises(TrainingError, match=f"epoch 4: the last {PATIENCE} batches .* lower lr"):
        monitor.batch(False)


def test_more_than_half_of_an_epoch_is_too_much(monitor: Monitor) -> None:
    for moved in [False, True] * PATIENCE:
        monitor.batch(moved)
    monitor.end()
    monitor.batch(False)
    with pytest.raises(TrainingError, match=f"{PATIENCE + 1} of {2 * PATIENCE + 1} batches"):
        monitor.end()


def test_a_robust_accuracy_that_falls_apart_is_catastrophic_overfitting(monitor: Monitor, said: list[str]) -> None:
    for robust in (0.1, 0.3, 0.2):
        monitor.epoch(seen(1, robust))
    assert not said
    monitor.epoch(seen(2, 0.14))
    assert "from 0.300 to 0.140: catastrophic overfitting" in said[0]


def test_an_epoch_with_a_collapsed_router_is_said(monitor: Monitor, said: list[str]) -> None:
    monitor.epoch(seen(1, 0.1).model_copy(update={"load_entropy": 0.49}))
    assert "entropy 0.49 of 1" in said[0]

"""Each broken model shows exactly the sign that it should; a sound one shows none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from audit.sanity import Sanity, inspect
from models import VideoMoE
from tests.audit_models import Linear, answers, eight_bit_clips, mixture


class Wrapped(nn.Module):
    """An expert behind something that hides its weakness."""

    def __init__(self, expert: nn.Module) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, x: Tensor) -> Tensor:
        return self.expert(x)


class Quantised(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.expert((x * 4).round() / 4)


class Detached(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.expert(x.detach())


class Saturated(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return 1e5 * self.expert(x)


class Infinite(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.expert(x)
        return logits + (logits - logits).sqrt()  # 0 forward, 0 / 0 backward


class Noisy(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.expert(x)
        return logits + 0.1 * torch.randn_like(logits)


class BatchStatistics(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.expert(x - x.mean(0, keepdim=True) + 0.5)


def look(broken: type[Wrapped] | None = None) -> Sanity:
    torch.manual_seed(0)
    model = mixture(experts=2, classes=3)
    if broken:
        model = VideoMoE(model.router, [broken(expert) for expert in model.experts]).eval()
    x = eight_bit_clips(24)
    return inspect(model, x, answers(model, x), batch_size=16)


def test_a_sound_model_shows_no_sign() -> None:
    sanity = look()
    assert sanity.training == () and sanity.dead_gradients.successes == 0
    assert sanity.repeat_difference == 0 and sanity.batch_difference < 1e-5
    assert sanity.far.n == 24 and sanity.far.successes == 0 and sanity.chance == pytest.approx(1 / 3)


@pytest.mark.parametrize("broken", [Quantised, Detached, Saturated, Infinite])
def test_gradients_that_lead_nowhere_are_counted(broken: type[Wrapped]) -> None:
    assert look(broken).dead_gradients.share > 0.5
    assert not look().dead_gradients.successes


def test_an_attack_that_cannot_bite_shows_at_a_distance() -> None:
    class Stuck(Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            return self.expert(torch.full_like(x, 0.5)) + 0 * x.sum()

    model = VideoMoE(Linear(1), [Stuck(Linear(3))]).eval()
    x = eight_bit_clips(24)
    sanity = inspect(model, x, answers(model, x))
    assert sanity.far.low > sanity.chance


def test_randomness_shows_when_asked_twice() -> None:
    assert look(Noisy).repeat_difference > 1e-3


def test_answers_that_depend_on_the_batch_show() -> None:
    assert look(BatchStatistics).batch_difference > 1e-3


def test_training_mode_shows_and_is_left_alone() -> None:
    model = VideoMoE(Linear(1), [nn.Sequential(nn.BatchNorm3d(3), Linear(2))]).eval()
    model.experts[0][0].train()  # type: ignore[index]
    x = eight_bit_clips(4)
    assert inspect(model, x, answers(model, x)).training == ("experts.0.0",)
    assert model.experts[0][0].training  # type: ignore[index]

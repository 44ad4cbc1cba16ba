"""What defines a method beyond its name: TRADES, adversarial weight perturbation, one step from a random start."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hardroute.models import VideoMoE, build_model
from hardroute.models.router import ConstantRouter
from hardroute.training.losses import (
    INNER,
    Attacked,
    attacked,
    inner_attack,
    loss_at,
    perturbed_weights,
    step_gradients,
)
from hardroute.training.methods import ABLATED_INNER, ABLATED_TERMS, METHODS
from hardroute.training.settings import FitSettings
from hardroute.training.terms import TERMS
from tests.support.training import SMALL

EPS = 8 / 255


@pytest.fixture
def x() -> Tensor:
    return torch.rand(6, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y() -> Tensor:
    return torch.tensor([0, 1, 1, 0, 1, 0])


def uniform(x: Tensor) -> Tensor:
    return torch.empty_like(x).uniform_(-1, 1, generator=torch.Generator().manual_seed(2))


class Logits(nn.Module):
    """Class logits that are linear in the clip."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 4 * 8 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


@pytest.fixture
def linear() -> VideoMoE:
    torch.manual_seed(0)
    return VideoMoE(ConstantRouter(), [Logits()])


def test_every_cell_of_every_row_has_its_attack_and_its_term() -> None:
    steps = [step for method in METHODS.values() for step in (*method.steps, *([method.start] if method.start else []))]
    assert {step.inner for step in steps} - {None} == set(INNER)
    assert {step.term for step in steps} - {None} == set(TERMS)
    assert set(ABLATED_INNER) < set(INNER) and set(ABLATED_TERMS) < set(TERMS)


class TestTrades:
    def test_the_loss_is_clean_cross_entropy_and_beta_times_the_divergence(
        self, linear: VideoMoE, x: Tensor, y: Tensor
    ) -> None:
        (step,), fit = METHODS["trades"].steps, FitSettings(**SMALL, method="trades")
        assert fit.lam == 6.0
        x_adv = (x + EPS * uniform(x)).clamp(0, 1)
        found = loss_at(step, linear, x, y, [Attacked(x_adv)], fit)
        p, q = linear(x).softmax(1), linear(x_adv).softmax(1)
        by_hand = cross_entropy(linear(x), y) + 6.0 * (p * (p / q).log()).sum(1).mean()
        torch.testing.assert_close(found, by_hand)

    def test_both_sides_of_the_divergence_are_trained(self, linear: VideoMoE, x: Tensor, y: Tensor) -> None:
        (step,), fit = METHODS["trades"].steps, FitSettings(**SMALL, method="trades")
        x_adv = (x + EPS * uniform(x)).clamp(0, 1)
        weight = linear.get_parameter("experts.0.linear.weight")
        (found,) = torch.autograd.grad(loss_at(step, linear, x, y, [Attacked(x_adv)], fit), weight)
        p, q = linear(x).log_softmax(1), linear(x_adv).log_softmax(1)
        by_hand = cross_entropy(linear(x), y) + 6.0 * (p.exp() * (p - q)).sum(1).mean()
        torch.testing.assert_close(found, torch.autograd.grad(by_hand, weight)[0])

    def test_the_inner_attack_climbs_the_divergence_and_needs_no_label(
        self, linear: VideoMoE, x: Tensor, y: Tensor
    ) -> None:
        attack = inner_attack(METHODS["trades"].steps[0])
        assert attack is not None

        def divergence(at: Tensor) -> Tensor:
            p, q = linear(x).log_softmax(1), linear(at).log_softmax(1)
            return (p.exp() * (p - q)).sum(1)

        start = (x + EPS * uniform(x)).clamp(0, 1)
        found = attack(linear, x, y, EPS, 10, noise=uniform(x))
        assert bool((divergence(found) > 4 * divergence(start)).all())
        assert torch.equal(found, attack(linear, x, 1 - y, EPS, 10, noise=uniform(x)))


class TestWeightPerturbation:
    def test_weights_go_up_the_loss_by_their_share_and_come_back_to_the_last_bit(self) -> None:
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        x = torch.rand(5, 3, generator=torch.Generator().manual_seed(3))
        before = {name: value.clone() for name, value in model.state_dict().items()}

        def loss() -> Tensor:
            return model(x).square().mul(torch.arange(10.0).view(5, 2)).sum()

        weight = model.get_parameter("0.weight")
        (gradient,) = torch.autograd.grad(loss(), weight)
        model.load_state_dict(before)
        with perturbed_weights(model, loss, 0.1):
            expected = before["0.weight"] + 0.1 * before["0.weight"].norm() * gradient / gradient.norm()
            torch.testing.assert_close(weight.detach(), expected)
            # Vectors stay, and the pass that looked for the way gathered nothing.
            rest = {name: value for name, value in model.state_dict().items() if name != "0.weight"}
            assert all(torch.equal(value, before[name]) for name, value in rest.items())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_they_come_back_after_an_error_too(self) -> None:
        model = nn.Linear(3, 2)
        before = model.weight.detach().clone()
        perturbed = perturbed_weights(model, lambda: model(torch.ones(1, 3)).sum(), 0.5)
        with contextlib.suppress(KeyboardInterrupt), perturbed:
            assert not torch.equal(model.weight, before)
            raise KeyboardInterrupt
        assert torch.equal(model.weight, before)

    def test_a_weight_without_influence_and_a_loss_that_is_not_finite_leave_it(self) -> None:
        model = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for factor, moved in ((1.0, {"used.weight"}), (torch.inf, set())):
            with perturbed_weights(model, lambda f=factor: f * model["used"](torch.ones(1, 2)).sum(), 0.1):  # type: ignore[misc]
                found = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
            assert found == moved

    def test_the_gradients_of_a_step_are_those_at_the_perturbed_weights(
        self, linear: VideoMoE, x: Tensor, y: Tensor
    ) -> None:
        (step,), fit = METHODS["awp"].steps, FitSettings(**SMALL, method="awp")
        assert fit.weight_eps == 0.005
        fit = fit.model_copy(update={"weight_eps": 0.2})
        weight = linear.get_parameter("experts.0.linear.weight")
        before = weight.detach().clone()
        loss = step_gradients(step, linear, x, y, EPS, fit, uniform)
        assert torch.equal(weight.detach(), before)
        x_adv = attacked(step, linear, x, y, EPS, fit, uniform)[0].x_adv
        (up,) = torch.autograd.grad(cross_entropy(linear(x_adv), y), weight)
        with torch.no_grad():
            weight.add_(0.2 * before.norm() * up / up.norm())
        there = cross_entropy(linear(x_adv), y)
        assert there > 1.01 * cross_entropy(
            x_adv.flatten(1) @ before.T + linear.get_parameter("experts.0.linear.bias"), y
        )
        torch.testing.assert_close(loss, there.detach())
        torch.testing.assert_close(weight.grad, torch.autograd.grad(there, weight)[0])


class TestFastAdversarialTraining:
    def test_it_takes_one_step_of_five_quarters_of_eps_from_a_random_start(self, x: Tensor, y: Tensor) -> None:
        torch.manual_seed(0)
        model = VideoMoE(ConstantRouter(), [Logits()])
        (step,), fit = METHODS["fast-at"].steps, FitSettings(**{**SMALL, "inner_steps": 7}, method="fast-at")
        clean = 0.25 + x / 2  # away from black and white
        (found,) = attacked(step, model, clean, y, EPS, fit, uniform)
        start = clean + EPS * uniform(clean)
        (gradient,) = torch.autograd.grad(cross_entropy(model(start.requires_grad_()), y, reduction="sum"), start)
        by_hand = torch.maximum(torch.minimum(start + 1.25 * EPS * gradient.sign(), clean + EPS), clean - EPS)
        torch.testing.assert_close(found.x_adv, by_hand.detach())

    def test_its_passes_are_those_of_one_step_whatever_is_asked(self, x: Tensor, y: Tensor) -> None:
        model = build_model(FitSettings(**SMALL).model(2)).eval()
        passes = []
        handle = model.experts[0].register_forward_hook(lambda *_: passes.append(1))
        other = model.experts[1].register_forward_hook(lambda *_: passes.append(1))
        attack: Any = inner_attack(METHODS["fast-at"].steps[0])
        attack(model, x[:1], y[:1], EPS, 9)
        handle.remove()
        other.remove()
        assert len(passes) == 1

"""Attacks that grow weaker where they should grow stronger are seen; those that do not are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hardroute import evaluate
from hardroute.audit.attacks import ATTACKS
from hardroute.audit.checks import Context
from hardroute.audit.checks.second_choice import FEWEST, Second, second_choices
from hardroute.audit.checks.strength import Comparison, measure, noise_only
from hardroute.audit.evaluation.replay import Agreement
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.policy import Policy
from hardroute.models import VideoMoE
from tests.support.audit_models import (
    Linear,
    answers,
    class_clips,
    eight_bit_clips,
    mixture,
    single,
    sound_mixture,
    with_attacks,
)
from tests.support.watched import baseline

EPS = 4 / 255


def context(model: VideoMoE, x: Tensor, y: Tensor, steps: int, held: np.ndarray | None = None) -> Context:
    """`held`: (N,) what the suite leaves standing, if not what it truly does."""
    evaluation = evaluate(model, x, y, eps=(EPS,), suite=["fgsm"], steps=steps)
    if held is not None:
        evaluation = replace(evaluation, robust={EPS: held})
    every = np.ones(len(x), bool)
    agreement = Agreement(every, {EPS: every}, every, {EPS: every}, baseline())
    policy = with_attacks(Policy.load("standard"), eps=(4,), gate_eps=4, steps=steps)
    return Context(model, x, y, evaluation, agreement, policy)


def uphill(model: VideoMoE, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The best that can be done against the linear model of two classes."""
    (expert,) = model.experts
    assert isinstance(expert, Linear)
    weight = expert.layer.weight.detach()
    return x - eps * (weight[0] - weight[1]).sign().view(x.shape[1:]) * (1 - 2 * y).view(-1, 1, 1, 1, 1)


def test_the_sign_test_in_closed_form() -> None:
    assert Comparison("a", "b", 0, 0).p == 1
    assert Comparison("a", "b", 7, 0).p == pytest.approx(1 / 128)
    assert Comparison("a", "b", 0, 7).p == pytest.approx(1)
    assert Comparison("a", "b", 2, 1).p == pytest.approx(0.5)


def test_a_model_with_honest_gradients_is_above_suspicion() -> None:
    model, x = mixture(), eight_bit_clips(24)
    given = context(model, x, answers(model, x), steps=4)
    found = measure(given)
    assert [each.weaker_only for each in found.comparisons] == [0, 0, 0]
    assert found.comparisons[0].stronger_only > 0 and noise_only(given).successes == 0


@pytest.mark.parametrize("worse", ["eps", "one step", "steps"])
def test_an_attack_that_more_makes_weaker_is_seen(worse: str) -> None:
    torch.manual_seed(0)
    model, x = single(), eight_bit_clips(24)
    y = answers(model, x)

    def probe(model: VideoMoE, x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        bites = {"eps": eps < EPS, "one step": steps == 1, "steps": steps < 5}[worse]
        return uphill(model, x, y, eps) if bites else x

    found = measure(context(model, x, y, steps=4), probe=probe)
    suspicious = [each.p < 0.01 for each in found.comparisons]
    assert suspicious == [worse == "eps", worse == "one step", worse == "steps"]


def test_noise_that_fells_what_the_suite_left_is_counted() -> None:
    torch.manual_seed(0)
    model, x = mixture(), eight_bit_clips(24)
    y, held = answers(model, x), np.zeros(24, bool)
    noisy = ATTACKS["noise"](model, x, y, EPS, steps=6)
    fell = (answers(model, noisy) != y).numpy()
    assert 0 < fell.sum() < 24
    held[fell] = True
    assert noise_only(context(model, x, y, 6, held)) == Proportion(int(fell.sum()), 24)


def test_second_choices_are_those_of_the_router() -> None:
    model = sound_mixture()
    x, y = class_clips(40)
    found = second_choices(model, x, y, batch_size=7)
    with torch.no_grad():
        order = model.router(x).argsort(1, descending=True)[:, 1]
        right = [int(model.experts[j](clip[None]).argmax()) == k for j, clip, k in zip(order, x, y, strict=True)]
    for j, proportion in enumerate(found):
        assert proportion == Proportion.of(np.array(right)[(order == j).numpy()])
    assert second_choices(single(), x, y) == ()


def test_the_weakest_expert_is_judged_on_enough_clips() -> None:
    assert Second((Proportion(9, 10), Proportion(0, FEWEST - 1), Proportion(8, 10)), 0.5).weakest == 2
    assert Second((), 0.5).weakest is None and Second((Proportion(0, 3),), 0.5).weakest is None

"""Passes are counted, not estimated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hardroute import evaluate
from hardroute.audit.attacks import find_attack
from hardroute.audit.evaluation.cost import Cost, counted, gflops, spent
from hardroute.models import VideoMoE
from tests.support.audit_models import SHAPE, Linear, answers, eight_bit_clips, mixture

VERDICT = 2  # forwards per clip: on the perturbed clip and on its 8-bit form


@pytest.mark.parametrize(
    ("attack", "router", "expert"),
    [
        # PGD through the Switch gate: one forward and backward a step, and a last forward to judge the last iterate.
        ("pgd", (3 + 1, 3), (3 + 1, 3)),
        # Through hard dispatch no gradient reaches the router.
        ("pgd-hard", (3 + 1, 0), (3 + 1, 3)),
        # A dense path asks all 3 experts.
        ("pgd-soft", (3 + 1, 3), (3 * (3 + 1), 3 * 3)),
        # The expert that the clean clip went to: one more look at the router. Judging it while it is also the route of
        # the attacked clip is free.
        ("pgd-e", (3 + 1 + 1, 0), (3 + 1, 3)),
        ("tla-e", (3 + 1 + 1, 0), (3 + 1 + 1, 3)),
    ],
)
def test_passes_of_an_attack_are_those_it_makes(attack: str, router: tuple[int, int], expert: tuple[int, int]) -> None:
    model, x = mixture(experts=3), eight_bit_clips(5)
    with counted(model) as passes:
        find_attack(attack)(model, x, answers(mixture(), x), eps=1e-4, steps=3)  # too small for another route
    assert passes.total.tolist() == [5 * count for count in (*router, *expert)]
    before = passes.total.copy()
    with torch.no_grad():
        model(x)
    assert (passes.total == before).all()  # nobody counts outside


def test_counting_does_not_change_the_attack() -> None:
    model, x = mixture(), eight_bit_clips(5)
    y = answers(model, x)
    alone = find_attack("j-tlga")(model, x, y, steps=3)
    with counted(model):
        assert torch.equal(find_attack("j-tlga")(model, x, y, steps=3), alone)


def test_removal_of_fallen_clips_is_set_against_running_everything() -> None:
    torch.manual_seed(0)
    model, x, eps = mixture(), eight_bit_clips(40), (2 / 255, 4 / 255)
    y = answers(model, x)
    y[:10] = (y[:10] + 1) % 4  # wrong unattacked: 30 are left to attack
    spared = evaluate(model, x, y, eps=eps, suite=["fgsm", "pgd-hard"], steps=3, thorough=False)
    report = spent(spared.costs, 40)
    left = [spared.costs["pgd-hard"][e].clips for e in eps]
    assert left == [int(spared.per_attack["fgsm"][e].sum()) for e in eps[:1]] + left[1:] and 0 < left[0] < 30
    # FGSM: a forward and a backward. PGD: 4 and 3. Each with its verdict.
    fgsm, pgd = 2 + VERDICT, 7 + VERDICT
    ran = [spared.costs["fgsm"][e].clips for e in eps]
    assert report["spent"]["expert_passes"] * 40 == fgsm * sum(ran) + pgd * sum(left)
    assert report["without_removal"]["expert_passes"] == 2 * (fgsm + pgd)
    assert report["share"] == pytest.approx(report["spent"]["expert_passes"] / 2 / (fgsm + pgd))
    everything = evaluate(model, x[10:], y[10:], eps=eps, suite=["fgsm", "pgd-hard"], steps=3)
    assert spent(everything.costs, 30)["share"] == pytest.approx(1)


def test_an_attack_that_never_ran_is_said_so() -> None:
    ran = Cost(2, np.array([4, 0, 6, 2]))
    report = spent({"a": {0.1: ran, 0.2: Cost(0, ran.passes * 0)}, "b": {0.1: Cost(0, ran.passes * 0)}}, 4)
    assert report["never_run"] == ["b"] and report["without_removal"]["expert_passes"] == 8
    assert spent({"b": {0.1: Cost(0, ran.passes * 0)}}, 4)["share"] is None


def test_operations_follow_the_route() -> None:
    model = VideoMoE(Linear(3), [Linear(5), Linear(10), Linear(20)]).eval()
    pixels = int(np.prod(SHAPE))
    found = gflops(model, eight_bit_clips(1), np.array([0.5, 0.5, 0]))
    assert found["routed"] * 1e9 == pytest.approx(2 * pixels * (3 + 7.5))
    assert found["dense"] * 1e9 == pytest.approx(2 * pixels * (3 + 35))

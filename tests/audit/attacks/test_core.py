"""Every attack keeps to its budget and leaves no trace; loop, step rules and terms equal their definitions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hardroute.audit.attacks import ATTACKS, SUITES, Attack, Settings, find_attack
from hardroute.audit.attacks.loop import Worst, project
from hardroute.audit.attacks.noise import per_clip
from hardroute.audit.attacks.objectives import EXPERT, LAM, MOE, ROUTER, Objective, ce, lip
from hardroute.audit.attacks.reference import Reference
from hardroute.audit.attacks.steps import constant, temporal
from hardroute.models import VideoMoE
from hardroute.runtime.errors import MethodError
from tests.support.audit_models import SHAPE, Linear, answers, eight_bit_clips, mixture, single

EPS = 8 / 255


def short(name: str) -> Attack:
    """The row, with at most 20 iterations or queries."""
    row = ATTACKS[name]
    if row.budget is not None:
        row = row.but(budget=20, then=tuple(other.but(budget=20) for other in row.then))
    return row


class Curved(nn.Module):
    """Logits that are neither linear nor saturated, so that iterates wander."""

    def __init__(self, outputs: int, batch_norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(3) if batch_norm else nn.Identity()
        self.first, self.last = Linear(12, scale=2.0), nn.Linear(12, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((3 * self.first(self.norm(x))).sin())


def curved(experts: int = 3, classes: int = 4, batch_norm: bool = False) -> VideoMoE:
    return VideoMoE(Curved(experts), [Curved(classes, batch_norm) for _ in range(experts)]).eval()


@given(
    centre=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6),
    moved=st.floats(-3, 3, width=32),
    eps=st.floats(0, 1),
)
def test_projection_is_the_nearest_point_of_both_boxes(centre: list[float], moved: float, eps: float) -> None:
    x = torch.tensor(centre, dtype=torch.float64)
    wanted = x + moved
    inside = project(wanted.clone(), x, eps)
    assert bool(((inside >= 0) & (inside <= 1) & ((inside - x).abs() <= eps + 1e-12)).all())
    assert torch.equal(project(inside.clone(), x, eps), inside)
    # In one dimension the nearest point of an interval is the point itself or the end on its side.
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    assert torch.allclose(inside, wanted.clip(low, high), atol=1e-12)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_keeps_to_the_box_and_leaves_no_trace(name: str) -> None:
    model = curved(batch_norm=True).train()
    model.experts[1].eval()
    for i, weight in enumerate(model.parameters()):
        weight.requires_grad_(i % 2 == 0)
        weight.grad = torch.full_like(weight, float(i)) if i % 2 == 0 else None
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    x = eight_bit_clips(6, margin=0)
    before, y = x.clone(), torch.arange(6) % 4
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    x_adv = short(name)(model, x, y, eps=EPS, steps=3, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(x, before)
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype and not x_adv.requires_grad
    assert bool(((x_adv >= 0) & (x_adv <= 1)).all()) and float((x_adv - x).abs().max()) <= EPS + 1e-7
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    for i, weight in enumerate(model.parameters()):
        assert weight.requires_grad is (i % 2 == 0)
        assert (weight.grad is None) if i % 2 else bool((weight.grad == i).all())  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ATTACKS)
def test_no_budget_means_the_clean_clip(name: str) -> None:
    x = eight_bit_clips(3)
    x_adv = short(name)(curved(), x, torch.tensor([0, 1, 2]), eps=0.0, steps=2)
    assert torch.allclose(x_adv, x, atol=1e-7)


def by_hand(model: VideoMoE, x: Tensor, y: Tensor, steps: int, size: float) -> Tensor:
    x_adv = x.clone()
    for _ in range(steps):
        x_adv.requires_grad_(True)
        (gradient,) = torch.autograd.grad(cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
        x_adv = (x_adv.detach() + size * gradient.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    return x_adv


def test_fgsm_and_pgd_equal_a_plain_loop() -> None:
    model, x = curved(), eight_bit_clips(12, margin=0)
    y = answers(model, x)
    fgsm = ATTACKS["fgsm"].but(path="hard")(model, x, y, EPS)
    assert torch.allclose(fgsm, by_hand(model, x, y, 1, EPS), atol=1e-7)
    pgd = ATTACKS["pgd"].but(path="hard", random_start=False, keep="last")
    assert torch.allclose(pgd(model, x, y, EPS, 7), by_hand(model, x, y, 7, 2.5 * EPS / 7), atol=1e-6)
    assert torch.allclose(pgd(model, x, y, EPS, 7, rel_stepsize=0.5), by_hand(model, x, y, 7, EPS / 2), atol=1e-6)
    assert not torch.allclose(pgd(model, x, y, EPS, 7), fgsm, atol=1e-3)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "pgd-margin"])
def test_a_linear_model_gives_the_closed_form(name: str) -> None:
    model, x = single(), eight_bit_clips(20, margin=0)
    y = torch.arange(20) % 2
    (expert,) = model.experts
    assert isinstance(expert, Linear)
    uphill = (expert.layer.weight[1] - expert.layer.weight[0]).sign().view(SHAPE)
    expected = (x + EPS * uphill * (1 - 2 * y).view(-1, 1, 1, 1, 1)).clamp(0, 1)
    assert torch.allclose(ATTACKS[name](model, x, y, EPS, steps=10), expected, atol=1e-7)
    # The last iterate is judged too: with one step it is the only one that moved.
    once = ATTACKS[name].but(random_start=False)(model, x, y, EPS, steps=1, rel_stepsize=1.0)
    assert torch.allclose(once, expected, atol=1e-7)


def test_the_worst_iterate_is_one_that_fools_else_the_highest() -> None:
    worst = Worst(torch.zeros(4))
    for at, fooled, value in (
        (1.0, [False, True, False, False], [3.0, 1.0, 1.0, torch.nan]),
        (2.0, [False, False, True, False], [2.0, 9.0, 0.5, 1.0]),
        (3.0, [False, True, True, False], [1.0, 2.0, 0.1, torch.nan]),
    ):
        worst.update(torch.full((4,), at), torch.tensor(fooled), torch.tensor(value))
    assert worst.x.tolist() == [1.0, 3.0, 2.0, 2.0]
    assert worst.fooled.tolist() == [False, True, True, False]


def test_keeping_the_worst_finds_what_the_last_iterate_has_left_again() -> None:
    model, x = curved(), eight_bit_clips(200)
    y = answers(model, x)
    fell = {}
    for keep in ("last", "worst"):
        x_adv = ATTACKS["pgd-hard"].but(keep=keep)(model, x, y, EPS, 8, rel_stepsize=1.0)
        fell[keep] = model(x_adv).argmax(1) != y
    assert not bool((fell["last"] & ~fell["worst"]).any())
    assert fell["worst"].sum() > fell["last"].sum()


@pytest.mark.parametrize("name", ["pgd-hard", "tla-m", "j-tlga"])
def test_more_steps_of_the_same_size_never_help_the_defender(name: str) -> None:
    """With rel_stepsize given, a shorter run is the beginning of a longer one, and the worst iterate of a beginning
    is no worse than that of the whole. With 2.5 / steps the runs differ from the first step on: no such theorem."""
    model, x = curved(), eight_bit_clips(100)
    y = answers(model, x)
    fell = [model(ATTACKS[name](model, x, y, 3 / 255, steps, rel_stepsize=0.5)).argmax(1) != y for steps in (1, 3, 9)]
    assert 0 < fell[0].sum() < fell[2].sum()
    for fewer, more in pairwise(fell):
        assert not bool((fewer & ~more).any())


def test_the_temporal_rule_is_equations_5_and_6() -> None:
    settings, steps, eps = Settings(beta=0.7, rel_stepsize=0.3), 5, 0.04
    rule, momentum = temporal(settings, steps), np.zeros((2, 4))
    for i in range(4):
        gradient = 10.0**i * np.random.default_rng(i).normal(size=(2, 3, 4, 5, 6)) * np.arange(4)[:, None, None]
        norms = np.sqrt((gradient**2).sum(axis=(1, 3, 4)))
        momentum = 0.7 * momentum + norms
        expected = 0.3 * eps / (1 + np.log(1 + np.sqrt(momentum)))
        found = rule(torch.from_numpy(gradient), eps)
        assert isinstance(found, Tensor) and found.shape == (2, 1, 4, 1, 1)
        assert np.allclose(found.numpy()[:, 0, :, 0, 0], expected, rtol=1e-12)
    assert constant(settings, steps)(torch.ones(1), eps) == pytest.approx(0.3 * eps)
    assert constant(Settings(), 5)(torch.ones(1), eps) == pytest.approx(0.5 * eps)


@pytest.mark.parametrize("head", [MOE, ROUTER, EXPERT])
def test_the_lipschitz_term_is_its_definition(head: Any) -> None:
    model, x = curved(), eight_bit_clips(5)
    x_adv = (x + 0.02 * per_clip(x, 3)).clamp(0, 1)
    aim = torch.tensor([0, 1, 2, 0, 1])
    reference = Reference(model, x, aim, "switch", aim)
    found = lip(head)(model.outputs(x_adv, "switch"), x_adv, reference, Settings())

    def logits(clips: Tensor) -> np.ndarray:
        router = model.router(clips)
        if head is ROUTER:
            return router.detach().double().numpy()
        experts = model.every_expert(clips)
        if head is EXPERT:
            return experts[torch.arange(5), aim].detach().double().numpy()
        route = router.argmax(1)
        gate = router.softmax(1)[torch.arange(5), route, None]
        return (gate * experts[torch.arange(5), route]).detach().double().numpy()

    moved = ((logits(x_adv) - logits(x)) ** 2).mean(1)
    distance = ((x_adv - x).double().numpy() ** 2).mean(axis=(1, 2, 3, 4))
    assert np.allclose(found.detach().numpy(), moved / distance, rtol=1e-3)
    still = lip(head)(model.outputs(x, "switch"), x, reference, Settings())
    assert bool((still == 0).all())  # the floor keeps 0 / 0 away


def test_a_weight_of_zero_skips_its_term() -> None:
    asked = []

    def value(*at: Any) -> Tensor:
        asked.append(1)
        return torch.ones(2)

    term = LAM * Objective(value)
    nothing: Any = None
    assert bool((term(nothing, nothing, nothing, Settings(lam=0.5)) == 0.5).all()) and len(asked) == 1
    assert term(nothing, nothing, nothing, Settings(lam=0.0)) == 0 and len(asked) == 1
    model, x = curved(), eight_bit_clips(8)
    y = answers(model, x)
    assert torch.equal(ATTACKS["la"](model, x, y, lam=0.0), ATTACKS["pgd"](model, x, y))
    assert not torch.equal(ATTACKS["la"](model, x, y, lam=1.0), ATTACKS["pgd"](model, x, y))


def test_the_guided_router_attack_leads_to_the_weakest_expert() -> None:
    model, x = mixture(experts=4), eight_bit_clips(60)
    y = answers(model, x)
    weakest = model.router(x).argmin(1)
    arrived = {
        name: (model.router(ATTACKS[name](model, x, y, 24 / 255)).argmax(1) == weakest).float().mean()
        for name in ("tla-r", "tlga-r")
    }
    assert arrived["tlga-r"] > arrived["tla-r"] + 0.3


def test_noise_belongs_to_the_clip() -> None:
    x = eight_bit_clips(9)
    whole, order = per_clip(x, 7), torch.randperm(9)
    assert torch.equal(per_clip(x[order], 7), whole[order])
    assert torch.equal(torch.cat([per_clip(part, 7) for part in x.split(2)]), whole)
    assert torch.equal(per_clip(x.contiguous(memory_format=torch.channels_last_3d), 7), whole)
    assert not torch.allclose(per_clip(x, 8), whole) and not torch.allclose(whole[0], whole[1])
    assert -1 <= float(whole.min()) < -0.9 < 0.9 < float(whole.max()) <= 1 and abs(float(whole.mean())) < 0.05


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"x": torch.zeros(3, 4, 6, 6)}, "clips must have shape"),
        ({"y": torch.zeros(3, dtype=torch.long)}, "one per clip"),
        ({"eps": 8}, "raw pixels"),
        ({"steps": 0}, "at least one step"),
    ],
)
def test_senseless_arguments_are_told(change: dict[str, Any], complaint: str) -> None:
    arguments: dict[str, Any] = {"x": eight_bit_clips(2), "y": torch.zeros(2, dtype=torch.long)}
    with pytest.raises(MethodError, match=complaint):
        ATTACKS["pgd"](mixture(), **(arguments | change))


def test_names() -> None:
    assert {*SUITES["full"], "autoattack"} == set(ATTACKS) and len(set(SUITES["full"])) == len(SUITES["full"])
    assert set(SUITES["quick"]) | set(SUITES["standard"]) <= set(ATTACKS)
    assert isinstance(find_attack("pgd"), Attack) and ATTACKS["pgd"].but(objective=ce(MOE)).path == "switch"
    with pytest.raises(MethodError, match=r"nonsense.*pgd"):
        find_attack("nonsense")


def test_rivals_are_the_wrong_classes_from_the_likeliest_on() -> None:
    model, x = curved(classes=5), eight_bit_clips(30)
    y = torch.arange(30) % 5
    order = [
        [c for c in row if c != label]
        for row, label in zip(model(x).argsort(1, descending=True).tolist(), y.tolist(), strict=True)
    ]
    found = [Reference(model, x, y, "hard", rank=rank).rival(MOE).tolist() for rank in range(4)]
    assert [list(ranks) for ranks in zip(*found, strict=True)] == order

"""AutoAttack's parts against their definitions, closed forms and linear programs; temporal translation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from hardroute.audit.attacks import ATTACKS, Settings
from hardroute.audit.attacks.apgd import apgd, checkpoints
from hardroute.audit.attacks.fab import fab, to_hyperplane
from hardroute.audit.attacks.loop import Climb, View, Worst
from hardroute.audit.attacks.objectives import MOE, ce, dlr
from hardroute.audit.attacks.reference import Reference
from hardroute.audit.attacks.square import boxes, share
from hardroute.audit.attacks.steps import constant
from hardroute.audit.attacks.translate import WEIGHTS, Translated
from hardroute.models import VideoMoE
from hardroute.models.router import ConstantRouter
from tests.support.audit_models import Linear, answers, eight_bit_clips, mixture, single

EPS = 8 / 255


class Fixed(nn.Module):
    """The first pixels are the logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : self.classes]


def borders(n: int) -> tuple[VideoMoE, Tensor, Tensor, Tensor]:
    """A linear two-class model, clips, labels, and how far (L-inf) each clip is from a mistake."""
    model, x = single(), eight_bit_clips(n, margin=100)
    y = answers(model, x)
    (expert,) = model.experts
    assert isinstance(expert, Linear)
    slope = (expert.layer.weight[0] - expert.layer.weight[1]).abs().sum()
    logits = model(x)
    return model, x, y, ((logits[:, 0] - logits[:, 1]).abs() / slope).detach()


def test_auto_pgd_reconsiders_its_step_where_the_paper_says() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert all(0 < mark <= 7 for mark in checkpoints(7))


class Seesaw:
    """A climb whose gradient changes sign at every look and whose value never rises; it notes where it was asked."""

    def __init__(self, x: Tensor) -> None:
        self.reference = SimpleNamespace(x=x)
        self.asked: list[float] = []

    def at(self, x_adv: Tensor, gradient: bool = True) -> View:
        self.asked.append(float(x_adv.flatten()[0]))
        slope = torch.full_like(x_adv, (-1.0) ** (len(self.asked) + 1))
        return View(torch.zeros(1), slope, torch.tensor([False]))


def test_auto_pgd_keeps_momentum_and_goes_back_to_the_best_with_half_the_step() -> None:
    clean, eps = 0.5, 0.1
    x = torch.full((1, 1, 1, 1, 1), clean)
    climb: Any = Seesaw(x)
    apgd(climb, x, rule=constant(Settings(), 1), eps=eps, steps=20, seed=0, worst=None)
    at = [(point - clean) / eps for point in climb.asked]
    assert at[:2] == pytest.approx([0, 1], abs=1e-5)
    assert at[2] == pytest.approx(1 + 0.75 * (-1 - 1) + 0.25 * (1 - 0), abs=1e-5)
    # Checkpoints at 5 and 9: nothing has risen, so both times it starts again from the best, the clean clip, with
    # 2 eps halved to eps and then to eps / 2, and the gradient seen there.
    assert checkpoints(20)[:2] == [5, 9]
    assert at[6] == pytest.approx(0.75 * 1 + 0.25 * (0 - at[4]), abs=1e-5)
    assert at[10] == pytest.approx(0.75 * 0.5 + 0.25 * (0 - at[8]), abs=1e-5)


def idle(climb: Climb, start: Tensor, *, worst: Worst, **how: Any) -> Tensor:
    return climb.reference.x


def test_later_rows_go_on_with_the_clips_still_standing() -> None:
    model, x = mixture(), eight_bit_clips(30)
    y = answers(model, x)
    pgd, seen = ATTACKS["pgd-hard"].but(budget=5), []

    def watched(climb: Climb, start: Tensor, **how: Any) -> Tensor:
        seen.append(climb.reference.x)
        return pgd.search(climb, start, **how)

    chain = pgd.but(search=idle, then=(pgd.but(search=idle), pgd.but(search=watched), pgd.but(search=watched)))
    x_adv = chain(model, x, y, 3 / 255)
    standing = model(x_adv).argmax(1) == y
    assert torch.equal(seen[0], x) and torch.equal(seen[1], x[standing]) and 0 < standing.sum() < 30
    assert torch.equal(x_adv[~standing], pgd(model, x, y, 3 / 255)[~standing])


def test_each_target_has_a_random_start_of_its_own() -> None:
    model, x = mixture(classes=4), eight_bit_clips(3)
    starts = []

    def watched(climb: Climb, start: Tensor, **how: Any) -> Tensor:
        starts.append(start - climb.reference.x)
        return start

    ATTACKS["apgd-t"].but(search=watched, rivals=9)(model, x, answers(model, x), EPS)
    assert len(starts) == 3
    assert all(0.9 * EPS < float(start.abs().max()) <= EPS + 1e-6 for start in starts)
    assert not torch.allclose(starts[0], starts[1], atol=EPS / 10)


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_the_difference_of_logits_ratio_is_its_definition(classes: int) -> None:
    model = VideoMoE(ConstantRouter(), [Fixed(classes)]).eval()
    x = eight_bit_clips(20, margin=0)
    y = torch.arange(20) % classes
    logits = model(x)
    wrong = logits.scatter(1, y[:, None], -torch.inf)
    for rank in range(classes - 1):
        reference = Reference(model, x, y, "hard", rank=rank)
        found = dlr(MOE)(model.outputs(x), x, reference, Settings())
        rival = wrong.argsort(1, descending=True)[:, rank]
        for i in range(20):
            z = np.sort(logits[i].numpy())[::-1]
            scale = 1.0 if classes == 2 else z[0] - z[2:4].mean()
            assert float(found[i]) == pytest.approx(float(logits[i, rival[i]] - logits[i, y[i]]) / scale, rel=1e-4)


def test_the_projection_on_a_plane_is_the_linear_programs() -> None:
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(40, 6))
    normal, offset = generator.normal(size=(40, 6)), generator.normal(size=40)
    normal[::5, 2] = 0
    found = to_hyperplane(*map(torch.from_numpy, (x, normal, offset))).numpy()
    assert ((found >= 0) & (found <= 1)).all()
    reachable = 0
    for at, w, b, z in zip(x, normal, offset, found, strict=True):
        # Smallest r with |z - x| <= r, z in [0, 1] and <w, z> + b = 0.
        eye, one = np.eye(6), np.ones((6, 1))
        best = linprog(
            [0] * 6 + [1],
            A_ub=np.block([[eye, -one], [-eye, -one]]),
            b_ub=np.concatenate([at, -at]),
            A_eq=[[*w, 0]],
            b_eq=[-b],
            bounds=[(0, 1)] * 6 + [(0, None)],
        )
        if best.status == 0:
            reachable += 1
            assert abs(w @ z + b) < 1e-9 and np.abs(z - at).max() == pytest.approx(best.fun, abs=1e-9)
        else:
            corner = np.where(w * (w @ at + b) > 0, 0.0, 1.0)
            assert abs(w @ z + b) == pytest.approx(abs(w @ corner + b), abs=1e-9)
    assert 10 < reachable < 40


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "fab-t", "autoattack"])
def test_a_linear_classifier_falls_exactly_where_it_can(name: str) -> None:
    model, x, y, distance = borders(60)
    eps = float(distance.median())
    row = ATTACKS[name].but(budget=30)
    x_adv = row.but(then=tuple(part.but(budget=30) for part in row.then))(model, x, y, eps)
    fallen, clear = model(x_adv).argmax(1) != y, (distance - eps).abs() > 0.01 * eps
    assert (fallen == (distance < eps))[clear].all() and clear.float().mean() > 0.8


def test_fab_comes_within_a_hundredth_of_the_nearest_mistake() -> None:
    model, x, y, distance = borders(20)
    row = ATTACKS["fab-t"].but(budget=20)
    for clip, label, nearest in zip(x.split(1), y.split(1), distance.tolist(), strict=True):
        assert int(model(row(model, clip, label, 1.01 * nearest)).argmax(1)) != int(label)
        assert int(model(row(model, clip, label, 0.99 * nearest)).argmax(1)) == int(label)


class Slope:
    """One pixel x whose mistake begins at 0.6: the objective is x - 0.6. It notes where it was asked."""

    def __init__(self, clean: Tensor) -> None:
        self.reference = SimpleNamespace(x=clean)
        self.gradients: list[float] = []
        self.verdicts: list[float] = []

    def at(self, x_adv: Tensor, gradient: bool = True) -> View:
        (self.gradients if gradient else self.verdicts).append(float(x_adv))
        value = x_adv.flatten() - 0.6
        return View(value, torch.ones_like(x_adv), value > 0)


def test_fab_oversteps_the_boundary_and_walks_back_towards_the_clean_clip() -> None:
    climb: Any = Slope(torch.full((1, 1, 1, 1, 1), 0.5))
    fab(climb, climb.reference.x, rule=constant(Settings(), 1), eps=0.0, steps=3, seed=0, worst=None)
    at = 0.5
    for asked, judged in zip(climb.gradients, climb.verdicts, strict=False):
        assert asked == pytest.approx(at, abs=1e-6)
        here, there = 0.6 - at, 0.6 - 0.5
        pull = min(here / (here + there), 0.1)
        assert judged == pytest.approx((1 - pull) * (at + 1.05 * here) + pull * (0.5 + 1.05 * there), abs=1e-6)
        assert judged > 0.6
        at = 0.1 * 0.5 + 0.9 * judged
    assert len(climb.gradients) == 3


def test_more_budget_never_helps_the_defender_of_a_random_search() -> None:
    model, x = mixture(experts=4), eight_bit_clips(30)
    y = answers(model, x)
    logits = model(ATTACKS["square"].but(budget=300)(model, x, y, 4 / 255))
    assert (logits.argmax(1) != y).sum() > 0
    start = model(ATTACKS["square"].but(budget=1)(model, x, y, 4 / 255))

    def lead(logits: Tensor) -> Tensor:
        own = logits.gather(1, y[:, None])
        return (logits.scatter(1, y[:, None], -torch.inf).amax(1, keepdim=True) - own)[:, 0]

    assert bool((lead(logits) >= lead(start))[logits.argmax(1) == y].all())


@pytest.mark.parametrize("name, budget", [("square", 200), ("nes", 410)])
def test_some_need_no_gradient(name: str, budget: int) -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Linear(3)

        def forward(self, x: Tensor) -> Tensor:
            # Fine enough for probes to see a slope; its own gradient is zero.
            return self.inner((x * 4096).round() / 4096)

    model, x = VideoMoE(ConstantRouter(), [Rounded()]).eval(), eight_bit_clips(30)
    y = answers(model, x)
    blind = ATTACKS["apgd-ce"].but(budget=20, random_start=False)(model, x, y, EPS)
    assert torch.equal(blind, x)
    x_adv = ATTACKS[name].but(budget=budget)(model, x, y, EPS)
    assert bool((model(x_adv).argmax(1) != y).any())


def test_proposals_shrink_and_have_the_volume_they_should() -> None:
    shares = [share(query, 5000) for query in range(5000)]
    assert shares[0] == 0.8 and shares[-1] == pytest.approx(0.8 / 512) and shares == sorted(shares, reverse=True)
    uniform = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
    inside = boxes(uniform, 0.05, (12, 32, 32))
    volume = inside.float().mean(dim=(1, 2, 3, 4))
    assert bool(((volume > 0.03) & (volume < 0.08)).all())
    spans = inside.any(dim=4).any(dim=3).sum(dim=2).flatten()
    assert set(spans.tolist()) == {12, 4}
    # One frame: squares on an image, of side sqrt(share * H * W), at every place.
    image = boxes(uniform, 0.05, (1, 16, 16))
    sides = image[:, 0, 0].any(2).sum(1)
    assert set(sides.tolist()) == {4} and image.any(0).all()


@pytest.mark.parametrize("name", ["apgd-t", "fab-t", "square", "nes", "noise"])
def test_a_clip_falls_alike_in_any_batch(name: str) -> None:
    model, x = mixture(experts=3), eight_bit_clips(10)
    y, order = answers(model, x), torch.randperm(10)
    row = ATTACKS[name].but(budget=90)
    whole = row(model, x, y, 3 / 255)
    parts = torch.cat([row(model, x[at], y[at], 3 / 255) for at in order.split(3)])
    assert torch.allclose(parts, whole[order], atol=1e-6)
    assert (model(whole).argmax(1) != y).sum() > 0


def test_noise_draws_corners_of_the_box() -> None:
    model, x = mixture(), eight_bit_clips(60)
    y = answers(model, x)
    moved = (ATTACKS["noise"].but(keep="last")(model, x, y, EPS, 1) - x).abs()
    assert torch.allclose(moved, torch.full_like(moved, EPS), atol=1e-6)
    fell = [model(ATTACKS["noise"](model, x, y, EPS, steps)).argmax(1) != y for steps in (1, 40)]
    assert not bool((fell[0] & ~fell[1]).any()) and fell[0].sum() < fell[1].sum()


def test_the_cascade_fells_what_any_of_its_parts_fells() -> None:
    model, x = mixture(experts=3, classes=3), eight_bit_clips(60)
    y = answers(model, x)
    rows = {name: ATTACKS[name].but(budget=25) for name in ("apgd-ce", "apgd-t", "fab-t", "square")}
    fell = {name: model(row(model, x, y, 3 / 255)).argmax(1) != y for name, row in rows.items()}
    cascade = rows["apgd-ce"].but(then=tuple(rows[name] for name in ("apgd-t", "fab-t", "square")))
    together = model(cascade(model, x, y, 3 / 255)).argmax(1) != y
    assert torch.equal(together, torch.stack(list(fell.values())).any(0))
    assert 0 < fell["apgd-ce"].sum() < together.sum() < 60


def test_translation_averages_gradients_over_frame_shifts() -> None:
    assert sum(WEIGHTS) == pytest.approx(1) and max(WEIGHTS) == WEIGHTS[7] and WEIGHTS[0] == pytest.approx(WEIGHTS[14])
    assert WEIGHTS[0] / WEIGHTS[7] == pytest.approx(np.exp(-4.5))
    model, x = single(), eight_bit_clips(4)
    y = answers(model, x)
    climb = Climb(ce(MOE), Reference(model, x, y, "hard"), Settings())
    expected = torch.zeros_like(x)
    for shift, weight in zip(range(-7, 8), WEIGHTS, strict=True):
        # Frame t of the shifted clip is frame t - shift of the clip; its gradient goes back there.
        frames = [(t - shift) % 4 for t in range(4)]
        expected[:, :, frames] += weight * climb.at(x[:, :, frames]).gradient
    found = Translated(climb.objective, climb.reference, climb.settings).at(x)
    assert torch.allclose(found.gradient, expected, atol=1e-7)
    assert torch.equal(found.value, climb.at(x).value)
    assert float((ATTACKS["tt"](model, x, y, EPS, steps=2) - x).abs().max()) == pytest.approx(EPS, rel=1e-4)

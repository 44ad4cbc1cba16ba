"""The evaluation against closed forms, and against attacks and models that misbehave."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hardroute import evaluate
from hardroute.audit.attacks.budget import BudgetError
from hardroute.models import VideoMoE
from hardroute.runtime.errors import MethodError
from tests.support.audit_models import SHAPE, Linear, answers, eight_bit_clips, mixture, single

EPS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)


def weights(model: VideoMoE) -> Tensor:
    (expert,) = model.experts
    assert isinstance(expert, Linear)
    return expert.layer.weight.detach()


def margins(model: VideoMoE, x: Tensor, y: Tensor) -> tuple[np.ndarray, float]:
    """Class margin of every clip, and how fast an L-inf budget can eat it: the L1 norm of its weights."""
    weight = weights(model)
    with torch.no_grad():
        logits = model(x)
        sign = 1 - 2 * y
        return (sign * (logits[:, 0] - logits[:, 1])).numpy(), float((weight[0] - weight[1]).abs().sum())


def uphill(model: VideoMoE) -> Tensor:
    """Signs of the pixels' weights for class 0 against class 1."""
    weight = weights(model)
    return torch.sign(weight[0] - weight[1]).view(SHAPE)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "pgd-margin"])
def test_a_linear_classifier_falls_exactly_where_the_closed_form_says(attack: str) -> None:
    model, x = single(), eight_bit_clips(200, margin=96)
    # Push each clip a different number of steps to one side, so that some fall at every eps and some at none.
    push = torch.randint(-12, 13, (200, 1, 1, 1, 1), generator=torch.Generator().manual_seed(2))
    x = (x * 255 + push * uphill(model)).round() / 255
    y = answers(model, x)
    y[::7] = 1 - y[::7]  # some are wrong from the start
    margin, slope = margins(model, x, y)
    result = evaluate(model, x, y, eps=EPS, suite=[attack])
    assert result.clean.tolist() == (margin > 0).tolist()
    for eps in EPS:
        decided = np.abs(margin - eps * slope) > 1e-4
        assert decided.mean() > 0.95
        assert (result.robust[eps] == (margin > eps * slope))[decided].all()
        # Corners of the box are 8-bit values: rounding for replay loses nothing.
        replayed = result.adversarial_label[eps] == result.labels
        assert (replayed == result.robust[eps])[decided].all()
    assert 0 < result.robust[EPS[-1]].mean() < result.robust[EPS[0]].mean() < 1


def test_robust_accuracy_never_rises_with_eps_and_zero_equals_clean() -> None:
    model, x = mixture(), eight_bit_clips(60)
    y = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(1))
    y[:40] = answers(model, x)[:40]
    result = evaluate(model, x, y, eps=(*EPS[::-1], 0.0), suite="quick", steps=5)
    assert result.eps == (0.0, *EPS)
    assert (result.robust[0.0] == result.clean).all()
    assert 0 < result.clean.sum() < 60
    for smaller, larger in zip(result.eps, result.eps[1:], strict=False):
        assert not (result.robust[larger] & ~result.robust[smaller]).any()
        for book in result.per_attack.values():
            assert not (book[larger] & ~book[smaller]).any()
    every = [result.per_attack[name] for name in result.attacks]
    for eps in result.eps:
        assert (result.robust[eps] == np.all([book[eps] for book in every], axis=0)).all()


def test_results_do_not_depend_on_batch_size_or_order() -> None:
    model, x = mixture(), eight_bit_clips(20)
    y, order = answers(model, x), torch.randperm(20, generator=torch.Generator().manual_seed(3))
    one = evaluate(model, x, y, eps=EPS[1:3], suite="quick", steps=4)
    for other, at in (
        (evaluate(model, x, y, eps=EPS[1:3], suite="quick", steps=4, batch_size=3), torch.arange(20)),
        (evaluate(model, x[order], y[order], eps=EPS[1:3], suite="quick", steps=4, batch_size=7), order),
    ):
        for eps in EPS[1:3]:
            assert (one.robust[eps][at] == other.robust[eps]).all()
            assert (one.adversarial[eps][at] == other.adversarial[eps]).all()
            for name in one.attacks:
                assert (one.route[name][eps][at] == other.route[name][eps]).all()
    assert 0 < one.robust[EPS[2]].mean() < 1


def test_sparing_fallen_clips_gives_the_same_headline_with_less_work() -> None:
    model, x = mixture(), eight_bit_clips(60)
    y = answers(model, x)
    all_of_it = evaluate(model, x, y, eps=EPS, suite="standard", steps=4)
    spared = evaluate(model, x, y, eps=EPS, suite="standard", steps=4, thorough=False)
    for eps in EPS:
        assert (all_of_it.robust[eps] == spared.robust[eps]).all()
        assert all(all_of_it.tested[name][eps].all() for name in all_of_it.attacks)
    last = spared.attacks[-1]
    assert not spared.tested[last][EPS[-1]].all()
    assert spared.accuracy(last, EPS[-1]).n == spared.tested[last][EPS[-1]].sum() < 60
    assert all_of_it.accuracy(last, EPS[-1]).n == 60


def test_a_clip_felled_at_a_smaller_eps_stays_felled() -> None:
    model, x = single(), eight_bit_clips(40)
    y = answers(model, x)

    def only_small(model: VideoMoE, x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        return x - eps * uphill(model) * (1 - 2 * y).view(-1, 1, 1, 1, 1) if eps < 3 / 255 else x

    result = evaluate(model, x, y, eps=(2 / 255, 8 / 255), suite={"only-small": only_small})
    assert 0 < result.robust[2 / 255].mean() < 1
    assert (result.robust[2 / 255] == result.robust[8 / 255]).all()
    assert (result.adversarial[2 / 255] == result.adversarial[8 / 255]).all()


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda x, eps: (x + 1.01 * eps).clamp(0, 1), "8.08[0-9]*/255 away"),
        (lambda x, eps: x * 0 - 1e-4, "left \\[0, 1\\]"),
        (lambda x, eps: x * torch.nan, "NaN"),
        (lambda x, eps: x[:1], "returned"),
        (lambda x, eps: x.double(), "float64"),
    ],
)
def test_an_attack_outside_its_budget_is_caught(broken: object, complaint: str) -> None:
    model, x = single(), eight_bit_clips(4)

    def attack(model: VideoMoE, x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        return broken(x, eps)  # type: ignore[operator]

    with pytest.raises(BudgetError, match=f"'planted' .*{complaint}"):
        evaluate(model, x, answers(model, x), suite={"planted": attack})


def test_an_attack_that_changes_its_input_cannot_move_the_box() -> None:
    model, x = single(), eight_bit_clips(4)

    def attack(model: VideoMoE, x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        return x.fill_(0.5)

    before = x.clone()
    with pytest.raises(BudgetError, match="away from the clip"):
        evaluate(model, x, answers(model, x), suite={"planted": attack})
    assert torch.equal(x, before)


class Forgetful(nn.Module):
    """Updates a buffer whenever it runs, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = Linear(2), nn.BatchNorm3d(3)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.inner(self.norm(x))


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_and_the_global_generator_are_left_as_they_were(fails: bool) -> None:
    model = VideoMoE(Linear(2), [Forgetful(), Forgetful()]).train()
    model.experts[1].eval()
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
        parameter.grad = torch.full_like(parameter, float(i)) if i % 2 == 0 else None
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    x = eight_bit_clips(6)

    def attack(model: VideoMoE, x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        assert not model.training
        torch.rand(1)
        if fails:
            raise KeyboardInterrupt
        return x

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        evaluate(model, x, torch.tensor([0, 1] * 3), suite={"planted": attack, "pgd": attack})
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for i, parameter in enumerate(model.parameters()):
        assert parameter.requires_grad is (i % 2 == 0)
        if i % 2 == 0:
            assert parameter.grad is not None and bool((parameter.grad == i).all())
        else:
            assert parameter.grad is None


class Unanswering(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1).sum(1) * 0 + torch.nan, x.flatten(1).sum(1)], 1)


def test_a_model_that_answers_nan_is_never_right() -> None:
    model = VideoMoE(Linear(1), [Unanswering()]).eval()
    result = evaluate(model, eight_bit_clips(4), torch.zeros(4, dtype=torch.long), suite=["fgsm"])
    assert not result.clean.any() and (result.clean_label == -1).all()


def test_flips_count_the_clips_that_change_their_expert() -> None:
    model, x = mixture(), eight_bit_clips(30)
    result = evaluate(model, x, answers(model, x), eps=(8 / 255,), suite=["tla-r", "fgsm"], steps=5)
    flips = result.flips("tla-r", 8 / 255)
    assert flips.n == 30 and flips.successes == (result.route["tla-r"][8 / 255] != result.clean_route).sum()
    assert flips.successes > 0


def test_progress_counts_up_to_the_whole() -> None:
    model, x = mixture(), eight_bit_clips(10)
    seen: list[tuple[int, int, str]] = []
    evaluate(
        model,
        x,
        answers(model, x),
        eps=EPS[:2],
        suite=["fgsm", "pgd"],
        steps=2,
        batch_size=4,
        thorough=False,
        progress=lambda *at: seen.append(at),
    )
    done = [at[0] for at in seen]
    assert done == sorted(done) and seen[-1][:2] == (60, 60) and seen[0][2] == "fgsm at 1/255"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"x": torch.zeros(2, 3, 4, 6)}, "shape"),
        ({"x": torch.zeros(2, *SHAPE, dtype=torch.uint8)}, "must be float32"),
        ({"x": torch.full((2, *SHAPE), 2.0)}, "lie in"),
        ({"x": torch.full((2, *SHAPE), torch.nan)}, "lie in"),
        ({"y": torch.zeros(3, dtype=torch.long)}, "one per clip"),
        ({"y": torch.full((2,), 9)}, "labels must be classes 0 to 1"),
        ({"eps": ()}, "eps: give"),
        ({"eps": (8,)}, "eps is in raw pixels"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_senseless_arguments(change: dict[str, object], complaint: str) -> None:
    arguments = {"x": eight_bit_clips(2), "y": torch.zeros(2, dtype=torch.long), "suite": ["fgsm"]} | change
    with pytest.raises(MethodError, match=complaint):
        evaluate(single(), **arguments)  # type: ignore[arg-type]


def test_a_callers_autocast_decides_nothing() -> None:
    model, x = mixture(), eight_bit_clips(6)
    y = answers(model, x)
    plain = evaluate(model, x, y, eps=(1 / 255,), suite=["pgd"], steps=2)
    with torch.autocast("cpu", torch.bfloat16):
        cast = evaluate(model, x, y, eps=(1 / 255,), suite=["pgd"], steps=2)
    assert np.array_equal(plain.robust[1 / 255], cast.robust[1 / 255])
    assert np.array_equal(plain.adversarial[1 / 255], cast.adversarial[1 / 255])


@pytest.mark.parametrize("suite", ["nonsense", ["nonsense"]])
def test_unknown_suite_or_attack_lists_the_known(suite: str | list[str]) -> None:
    with pytest.raises(MethodError, match=r"nonsense.*(standard|pgd)"):
        evaluate(single(), eight_bit_clips(2), torch.zeros(2, dtype=torch.long), suite=suite)

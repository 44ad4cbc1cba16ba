"""Right or an error: what an attack is given, and where it is called from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hardroute.audit.attacks import ATTACKS, SUITES, answers, validate_clips
from hardroute.models import VideoMoE
from hardroute.runtime.errors import MethodError
from tests.support.audit_models import Linear, eight_bit_clips, mixture
from tests.support.audit_models import answers as own_labels

EPS = 8 / 255
FEW = {name: ATTACKS[name] for name in (*SUITES["standard"], "pgd-r", "tlga-r", "tt", "noise")}


def attacked(name: str, model: VideoMoE, x: Tensor, y: Tensor, **how: Any) -> Tensor:
    return FEW[name](model, x, y, EPS, steps=3, **how)


@pytest.mark.parametrize("name", FEW)
def test_inference_mode_changes_nothing(name: str) -> None:
    model, x = mixture(), eight_bit_clips(16)
    y = own_labels(model, x)
    expected = attacked(name, model, x, y)
    with torch.inference_mode():
        inside = attacked(name, model, x.clone(), y.clone())  # clips and labels made there
        assert torch.equal(inside, expected)
    with torch.no_grad():
        assert torch.equal(attacked(name, model, x, y), expected)
    inside.requires_grad_(True).sum().backward()  # and what comes back is an ordinary tensor


def test_autoattack_goes_on_with_the_clips_that_stand_in_inference_mode() -> None:
    model, x = mixture(), eight_bit_clips(6)
    y = own_labels(model, x)
    row = ATTACKS["autoattack"].but(budget=3, then=tuple(each.but(budget=3) for each in ATTACKS["autoattack"].then))
    with torch.inference_mode():
        inside = row(model, x.clone(), y.clone(), EPS)
    assert torch.equal(inside, row(model, x, y, EPS))


def test_a_model_made_in_inference_mode_is_refused() -> None:
    with torch.inference_mode():
        model = mixture()
        x = eight_bit_clips(2)
    with pytest.raises(MethodError, match=r"router\.layer\.weight was made under torch\.inference_mode"):
        ATTACKS["pgd"](model, x, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_whole_type_mean_the_same(dtype: torch.dtype) -> None:
    model, x = mixture(), eight_bit_clips(8)
    y = own_labels(model, x)
    for name in FEW:
        assert torch.equal(attacked(name, model, x, y.to(dtype)), attacked(name, model, x, y)), name


def clips(change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {"x": change(eight_bit_clips(3))}


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (clips(lambda x: (x - 0.45) / 0.225), r"clips must lie in \[0, 1\]"),
        (clips(lambda x: x * 255), r"clips must lie in \[0, 1\]"),
        (clips(lambda x: x.index_fill(0, torch.tensor([1]), torch.nan)), r"clips must lie in \[0, 1\], not nan"),
        (clips(lambda x: x.double()), r"float32, not float64"),
        (clips(lambda x: x.half()), r"float32, not float16"),
        (clips(lambda x: (x * 255).byte()), r"float32, not uint8"),
        ({"x": torch.zeros(0, 3, 4, 6, 6), "y": torch.zeros(0, dtype=torch.long)}, "at least one clip"),
        ({"y": torch.tensor([0, 1, 4])}, "classes 0 to 3 of the model; clip 2 has 4"),
        ({"y": torch.tensor([0, -1, 2])}, "classes from 0; clip 1 has -1"),
        ({"y": torch.tensor([0, -100, 2])}, "clip 1 has -100"),  # torch's own sign to ignore a row
        ({"y": torch.tensor([0.0, 1.0, 2.0])}, "whole numbers, not float32"),
        ({"y": torch.tensor([True, False, True])}, "whole numbers, not bool"),
        ({"eps": -0.1}, "raw pixels"),
        ({"eps": float("nan")}, "raw pixels"),
    ],
)
def test_what_no_attack_can_be_right_about_is_refused(name: str, change: dict[str, Any], complaint: str) -> None:
    arguments: dict[str, Any] = {"x": eight_bit_clips(3), "y": torch.tensor([0, 1, 2])} | change
    with pytest.raises(MethodError, match=complaint) as raised:
        FEW[name](mixture(), **arguments)
    assert "\n" not in str(raised.value)


def test_a_step_in_pixels_is_what_other_libraries_call_alpha() -> None:
    model, x = mixture(), eight_bit_clips(12)
    y = own_labels(model, x)
    for name in ("pgd", "tla-m"):
        by_share = ATTACKS[name](model, x, y, EPS, steps=6, rel_stepsize=0.25)
        assert torch.equal(ATTACKS[name](model, x, y, EPS, steps=6, alpha=2 / 255), by_share)
    once = ATTACKS["pgd-hard"].but(random_start=False, keep="last")(model, x, y, EPS, steps=1, alpha=2 / 255)
    assert float((once - x).abs().max()) == pytest.approx(2 / 255, abs=1e-6)
    assert torch.equal(ATTACKS["pgd"](model, x, y, 0.0, alpha=2 / 255), x)
    for wrong in (0.25, 0.0, -0.01, float("nan")):  # 0.25 was once a share of eps
        with pytest.raises(MethodError, match="rel_stepsize"):
            ATTACKS["pgd"](model, x, y, EPS, alpha=wrong)


class Broken(nn.Module):
    """A part that answers with something else where a clip's first pixel is above a half."""

    def __init__(self, part: nn.Module, value: float, column: int) -> None:
        super().__init__()
        self.part, self.value, self.column = part, value, column

    def forward(self, x: Tensor) -> Tensor:
        logits = self.part(x).clone()
        logits[x[:, 0, 0, 0, 0] > 0.5, self.column] = self.value
        return logits


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["router", "expert"])
def test_what_is_not_finite_is_no_answer(value: float, where: str) -> None:
    plain, x = mixture(), eight_bit_clips(40)
    y = own_labels(plain, x)
    # Column 1 is neither the first nor the last: an argmax over NaN would take it for a class or an expert.
    broken = {"router": plain.router, "expert": plain.experts[0]}[where]
    model = VideoMoE(
        Broken(broken, value, 1) if where == "router" else plain.router,
        [Broken(each, value, 1) if where == "expert" else each for each in plain.experts],
    ).eval()
    bad = x[:, 0, 0, 0, 0] > 0.5
    assert 5 < int(bad.sum()) < 35
    found = answers(model.outputs(x))
    assert bool((found[bad] == -1).all()) and torch.equal(found[~bad], y[~bad])
    # Whoever can be moved to where the model does not answer has fallen, even where argmax would name the label.
    right = torch.ones_like(y)
    x_adv = ATTACKS["pgd-hard"](model, x[bad], right[bad], EPS, steps=3)
    assert bool((answers(model.outputs(x_adv)) != 1).all()) and bool(((x_adv - x[bad]).abs() <= EPS + 1e-6).all())


def test_of_equal_scores_the_first_counts() -> None:
    plain, x = mixture(experts=3), eight_bit_clips(30)

    class Tied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1).sum(1, keepdim=True) * 0).expand(-1, 3)

    model = VideoMoE(Tied(), list(plain.experts)).eval()
    only = VideoMoE(Tied(), [plain.experts[0]] * 3).eval()
    assert bool((model.outputs(x).route == 0).all())
    y = own_labels(model, x)
    assert torch.equal(y, plain.experts[0](x).argmax(1))
    for name in ("pgd-hard", "pgd-margin"):
        assert torch.equal(ATTACKS[name](model, x, y, EPS), ATTACKS[name](only, x, y, EPS))
    for name in FEW:  # no search stumbles over scores without a spread
        x_adv = attacked(name, model, x, y)
        assert bool(x_adv.isfinite().all()) and float((x_adv - x).abs().max()) <= EPS + 1e-6


class Waits(nn.Module):
    """A part with a batch norm that lets another thread go first."""

    def __init__(self, outputs: int, together: threading.Barrier) -> None:
        super().__init__()
        self.norm, self.part, self.together = nn.BatchNorm3d(3), Linear(outputs), together

    def forward(self, x: Tensor) -> Tensor:
        try:
            self.together.wait(timeout=0.01)
        except threading.BrokenBarrierError:
            self.together.reset()
        return self.part(self.norm(x))


def test_two_threads_may_attack_one_model() -> None:
    together = threading.Barrier(2)
    model = VideoMoE(Linear(2), [Waits(4, together), Waits(4, together)])
    model.train()
    x = eight_bit_clips(6)
    y = torch.arange(6) % 4
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = {seed: ATTACKS["pgd"](model, x, y, EPS, steps=4, seed=seed) for seed in (0, 1)}
    found: dict[int, Tensor] = {}

    def attack(seed: int) -> None:
        found[seed] = ATTACKS["pgd"](model, x, y, EPS, steps=4, seed=seed)

    for _ in range(3):
        threads = [threading.Thread(target=attack, args=(seed,)) for seed in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(torch.equal(found[seed], expected[seed]) for seed in (0, 1))
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(module.training for module in model.modules())
        assert all(weight.requires_grad for weight in model.parameters())
        assert not any("forward" in vars(module) for module in model.modules())


def test_validation_says_nothing_of_what_is_right() -> None:
    validate_clips(eight_bit_clips(2), torch.tensor([0, 7]), 1.0)
    validate_clips(torch.zeros(1, 1, 1, 1, 1))

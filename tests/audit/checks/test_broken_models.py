"""Each broken model is refused by the flag that is meant for it; a sound one is not refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hardroute import evaluate
from hardroute.audit.checks import Context, decide, measure
from hardroute.audit.checks.extremes import Far
from hardroute.audit.evaluation.replay import Agreement
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.policy import Policy
from hardroute.models import VideoMoE
from tests.support.audit_models import Linear, class_clips, sound_mixture, with_attacks, with_bounds
from tests.support.watched import baseline

EPS = 2 / 255


class Wrapped(nn.Module):
    """A part of the model behind something that hides its weakness."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)


class Quantised(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.part((x * 16).round() / 16)


class Detached(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.part(x.detach())


class Saturated(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return 30 * self.part(x)


class Overflowing(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return 1e5 * self.part(x)


class Softmax(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.part(x).softmax(1)


class Infinite(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.part(x)
        return logits + (logits - logits).sqrt()  # 0 forward, 0 / 0 backward


class Noisy(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.part(x)
        return logits + 0.1 * torch.randn_like(logits)


class Faint(Wrapped):
    """Noise too small to move a clip to another expert."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.part(x)
        return logits + 5e-3 * torch.randn_like(logits)


class BatchStatistics(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.part(x - x.mean(0, keepdim=True) + 0.5)


class Constant(Wrapped):
    """The same answer for every clip, with a gradient that is not zero."""

    def forward(self, x: Tensor) -> Tensor:
        logits = 1e-3 * self.part(x)
        return logits + 5 * torch.nn.functional.one_hot(torch.tensor(1), logits.shape[1])


class Stuck(Wrapped):
    """Classifies a coarse picture; the gradient that it shows is of one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        seen = self.part((x.detach() * 8).round() / 8)
        return seen + (x - x.detach()).flatten(1)[:, :1] * torch.tensor([1.0, 0, -1])


def experts(kind: type[Wrapped]) -> Callable[[], VideoMoE]:
    def build() -> VideoMoE:
        model = sound_mixture()
        return VideoMoE(model.router, [kind(expert) for expert in model.experts]).eval()

    return build


def router(kind: type[Wrapped]) -> Callable[[], VideoMoE]:
    def build() -> VideoMoE:
        model = sound_mixture()
        return VideoMoE(kind(model.router), model.experts).eval()

    return build


def weak_second() -> VideoMoE:
    """Expert 2 knows nothing and is nobody's first choice; a push of the router is enough to get there."""
    model = sound_mixture()
    first = model.router
    assert isinstance(first, Linear)
    with torch.no_grad():
        lead = first.layer.weight[:2].clone()
        first.layer.weight[2] = lead.mean(0)  # always between the other two, so always second
        first.layer.bias[2] = first.layer.bias[:2].mean()
    return VideoMoE(first, [model.experts[0], model.experts[1], Constant(model.experts[2])]).eval()


def training_norm() -> VideoMoE:
    model = sound_mixture()
    norm = nn.BatchNorm3d(3)
    model = VideoMoE(model.router, [nn.Sequential(norm, model.experts[0]), *model.experts[1:]]).eval()
    norm.train()
    return model


def context(model: VideoMoE, x: Tensor, y: Tensor, suite: str | list[str], steps: int, **changes: Any) -> Context:
    """What checks find where the deployed runtime answers as the twin, under a policy that asks for no accuracy.

    `changes`: fields of the evaluation to replace.
    """
    evaluation = replace(evaluate(model, x, y, eps=(EPS,), suite=suite, steps=steps), **changes)
    right = evaluation.adversarial_label[EPS] == evaluation.labels
    same = np.ones(len(x), bool)
    agreement = Agreement(same, {EPS: same}, evaluation.clean, {EPS: right}, baseline())
    policy = with_attacks(Policy.load("standard"), eps=(2,), gate_eps=2, steps=steps)
    return Context(model, x, y, evaluation, agreement, with_bounds(policy, clean_accuracy=0.0, robust_accuracy=0.0))


def audit(model: VideoMoE) -> tuple[dict[str, Any], dict[str, str]]:
    """What each check measured, and the checks that refuse, with their sentences."""
    given = context(model, *class_clips(48), suite="standard", steps=5)
    found = measure(given)
    refused = {check.name: check.sentence for check in decide(found, given.policy).checks if not check.passed}
    return {name: each.measured for name, each in found.each.items()}, refused


def test_a_sound_model_is_not_refused() -> None:
    torch.manual_seed(0)
    found, refused = audit(sound_mixture())
    assert refused == {}
    assert found["ready to serve"] == ()
    assert found["usable gradients"] == found["usable router gradients"] == Proportion(0, 48)
    assert found["repeatable"] == 0 and found["clips independent"] < 1e-5
    assert found["attacks bite"] == Far(Proportion(0, 48), chance=1 / 3)
    assert sum(each.n for each in found["weakest expert"].choices) == 48


@pytest.mark.parametrize(
    ("broken", "flag", "sentence"),
    [
        (experts(Detached), "usable gradients", "no gradient to follow"),
        (experts(Quantised), "usable gradients", "no gradient to follow"),
        (experts(Overflowing), "usable gradients", "no gradient to follow"),
        (experts(Infinite), "usable gradients", "no gradient to follow"),
        (router(Detached), "usable router gradients", "router no gradient"),
        (router(Quantised), "usable router gradients", "router no gradient"),
        (router(Noisy), "repeatable", "Asked twice"),
        (router(Faint), "repeatable", "Asked twice"),
        (experts(Noisy), "repeatable", "Asked twice"),
        (experts(Saturated), "unsaturated outputs", "rounds to 1"),
        (experts(Softmax), "unsaturated outputs", "probabilities where logits belong"),
        (router(Constant), "router load", "entropy of 0.00"),
        (training_norm, "ready to serve", r"training mode: experts\.0\.0"),
        (experts(BatchStatistics), "clips independent", "Alone or in a batch"),
        (experts(Stuck), "attacks bite", "clips still hold"),
        (weak_second, "weakest expert", "Expert 2 is .*second choice"),
    ],
)
def test_a_broken_model_is_refused_by_the_right_flag(broken: Callable[[], VideoMoE], flag: str, sentence: str) -> None:
    torch.manual_seed(0)
    model = broken()
    _, refused = audit(model)
    assert flag in refused, refused
    assert re.search(sentence, refused[flag]), refused[flag]
    # A person should read the cause: at most one other flag sees it too.
    assert len(refused) <= 2, refused


def test_clips_that_are_wrong_anyway_are_not_looked_at() -> None:
    """They would count as fallen, and so as proof that attacks bite."""
    model, (x, y) = sound_mixture(), class_clips(200)
    clean = np.arange(200) % 20 == 0
    seen: list[tuple[int, int]] = []
    some = context(model, x, y, ["fgsm"], 2, clean=clean)
    found = measure(some, progress=lambda done, total, what: seen.append((done, total)))
    of = {name: each.measured for name, each in found.each.items()}
    assert of["attacks bite"].held.n == of["nothing at eps 0"].n == of["usable gradients"].n == 10
    assert of["stronger is stronger"].clips == 10 and list(some.sample) == list(np.flatnonzero(clean))
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1] and seen == sorted(seen)
    assert len(context(model, x, y, ["fgsm"], 1, clean=~clean | clean).sample) == 64
    none_right = measure(context(model, x[:6], y[:6], ["fgsm"], 1, clean=np.zeros(6, bool)))
    assert none_right.each["attacks bite"].measured.held.n == 6 and none_right.passes[0] > 0


def test_training_mode_is_left_alone() -> None:
    model = training_norm()
    found = measure(context(model, *class_clips(6), ["fgsm"], 1))
    assert found.each["ready to serve"].measured == ("experts.0.0",)
    assert model.experts[0][0].training  # type: ignore[index]


def test_what_several_checks_need_is_computed_once() -> None:
    """The first forward of the sample serves four checks: outputs, chance, and two comparisons with a second one."""
    given = context(sound_mixture(), *class_clips(40), ["fgsm"], 1)
    asked = []
    with given.model.router.register_forward_hook(lambda *_: asked.append(1)):
        first = given.answers
        assert given.answers is first and given.chance == pytest.approx(1 / 3)
    assert len(asked) == len(given.batches) == 2

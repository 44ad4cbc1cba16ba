"""The one ascent loop under every gradient attack, and the projection it keeps to."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from audit.attacks.objectives import Objective
from audit.attacks.reference import Reference
from audit.attacks.settings import Settings
from audit.attacks.steps import Rule


def project(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest point within eps of x in every pixel and within [0, 1]."""
    return torch.minimum(torch.maximum(x_adv, x - eps), x + eps).clamp_(0, 1)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no weight gradients inside; every module's mode and every weight's flag as before outside.

    Filling the weights' gradients would more than double an attack's time.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        model.eval()
        for weight, _ in flags:
            weight.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, flag in flags:
            weight.requires_grad_(flag)


class Worst:
    """Per clip the worst iterate so far: one that fools the deployed model, else the one of highest objective."""

    def __init__(self, x: Tensor) -> None:
        self.x = x.clone()
        self.fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.value = torch.full((len(x),), -torch.inf, device=x.device)

    def update(self, x_adv: Tensor, fooled: Tensor, value: Tensor) -> None:
        better = (fooled & ~self.fooled) | ((fooled == self.fooled) & (value > self.value))
        self.x[better] = x_adv[better]
        self.value[better] = value[better]
        self.fooled |= fooled


def ascend(
    objective: Objective,
    rule: Rule,
    reference: Reference,
    start: Tensor,
    *,
    eps: float,
    steps: int,
    settings: Settings,
    worst: Worst | None,
) -> Tensor:
    """`steps` sign steps from `start` up the objective, inside the eps-box around reference.x and [0, 1].

    With `worst` it judges every iterate, the start and the last included, and returns the worst seen; without, it
    returns the last. The model must be frozen. A gradient that is not finite counts as zero.
    """
    x, x_adv = reference.x, project(start, reference.x, eps)

    def judge(x_adv: Tensor) -> Tensor:
        outputs = reference.model.outputs(x_adv, reference.path)
        value = objective(outputs, x_adv, reference, settings)
        if worst is not None:
            with torch.no_grad():
                worst.update(x_adv, outputs.deployed.argmax(1) != reference.y, value.detach())
        return value

    for _ in range(steps):
        x_adv.requires_grad_(True)
        with torch.enable_grad():
            value = judge(x_adv).sum()
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, x_adv, materialize_grads=True)
        else:
            # A model that cuts its gradient is for the audit to refuse, not for an attack to stumble over.
            gradient = torch.zeros_like(x_adv)
        with torch.no_grad():
            # The gradient of a sum is one number seen everywhere, which cannot be written in place.
            gradient = gradient.contiguous().nan_to_num_(0, 0, 0)
            x_adv = project(x_adv + rule(gradient, eps) * gradient.sign_(), x, eps)
    if worst is None:
        return x_adv
    with torch.no_grad():
        judge(x_adv)
    return worst.x

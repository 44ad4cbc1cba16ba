"""The one ascent loop under every gradient attack, and the projection it keeps to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hardroute.audit.attacks.objectives import Objective
from hardroute.audit.attacks.reference import Reference
from hardroute.audit.attacks.settings import Settings
from hardroute.audit.attacks.steps import Rule
from hardroute.audit.attacks.validation import answers

_TURN = threading.RLock()


def project(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """x_adv itself, moved in place to the nearest point within eps of x in every pixel and within [0, 1]."""
    return x_adv.clamp_(x - eps, x + eps).clamp_(0, 1)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no weight gradients inside; every module's mode and every weight's flag as before outside.

    Filling the weights' gradients would more than double an attack's time. Threads take turns: what one of them found
    and puts back afterwards must not be what another has just set, on models that may share parts.
    """
    with _TURN:
        yield from _frozen(model)


def _frozen(model: nn.Module) -> Iterator[None]:
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
        # Clip by clip: a masked assignment would gather the clips first, another copy and three times as long.
        for clip in better.nonzero().flatten().tolist():
            self.x[clip] = x_adv[clip]
        self.value = torch.where(better, value, self.value)
        self.fooled |= fooled

    def settle(self, x_adv: Tensor, fooled: Tensor, value: Tensor) -> None:
        """Like `update`, but a clip once fooled stays as it is, so that a search may stop at any time after."""
        self.update(x_adv, fooled & ~self.fooled, value.where(~self.fooled, -torch.inf))

    def part(self, index: Tensor) -> "Worst":
        """The worst iterates of some clips, to go on from; `join` brings them back. Of all: itself, not a copy."""
        if len(index) == len(self.x):
            return self
        part = Worst(self.x[index])
        part.fooled, part.value = self.fooled[index], self.value[index]
        return part

    def join(self, index: Tensor, part: "Worst") -> None:
        if part is not self:
            self.x[index], self.fooled[index], self.value[index] = part.x, part.fooled, part.value


@dataclass(frozen=True)
class View:
    """What an attack sees at one iterate: the objective (N,), its gradient, who is fooled (N,); empty if not asked."""

    value: Tensor
    gradient: Tensor
    fooled: Tensor


@dataclass(frozen=True)
class Climb:
    """An objective on one batch, as a search sees it. The model must be frozen."""

    objective: Objective
    reference: Reference
    settings: Settings

    def at(self, x_adv: Tensor, gradient: bool = True, judge: bool = True) -> View:
        """A gradient that is not finite counts as zero."""
        x_adv = x_adv.detach().requires_grad_(gradient)
        found = torch.empty(0)
        with torch.set_grad_enabled(gradient):
            outputs = self.reference.model.outputs(x_adv, self.reference.path)
            value = self.objective(outputs, x_adv, self.reference, self.settings)
            if gradient and value.requires_grad:
                (found,) = torch.autograd.grad(value.sum(), x_adv, materialize_grads=True)
                # The gradient of a sum is one number seen everywhere, which cannot be written in place.
                found = found.contiguous().nan_to_num_(0, 0, 0)
            elif gradient:
                # A model that cuts its gradient is for the audit to refuse, not for an attack to stumble over.
                found = torch.zeros_like(x_adv)
        fooled = torch.empty(0)
        if judge:  # an objective of the router alone has not run an expert yet
            with torch.no_grad():
                self.reference.of_classes(outputs.deployed)
                fooled = answers(outputs) != self.reference.y
        return View(value.detach(), found, fooled)


@torch.no_grad()
def ascend(
    climb: Climb, start: Tensor, *, rule: Rule, eps: float, steps: int, seed: int, worst: Worst | None
) -> Tensor:
    """`steps` sign steps from `start` up the objective, inside the eps-box around the clean clips and [0, 1].

    With `worst` it judges every iterate, the start and the last included, and returns the worst seen; without, it
    returns the last. Draws nothing, so `seed` does not matter. All iterates live in the memory of `start`.
    """
    x = climb.reference.x
    x_adv = project(start, x, eps)
    for _ in range(steps):
        view = climb.at(x_adv, judge=worst is not None)
        if worst is not None:
            worst.update(x_adv, view.fooled, view.value)
        size = rule(view.gradient, eps)
        x_adv = project(x_adv.add_(view.gradient.sign_().mul_(size)), x, eps)
        del view  # or its gradient would be held through the next pass
    if worst is None:
        return x_adv
    view = climb.at(x_adv, gradient=False)
    worst.update(x_adv, view.fooled, view.value)
    return worst.x

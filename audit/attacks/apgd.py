"""Auto-PGD: steps that halve by themselves where progress stalls (Croce and Hein 2020, algorithm 1)."""

from math import ceil

import torch
from torch import Tensor

from hardroute.audit.attacks.loop import Climb, Worst, project
from hardroute.audit.attacks.steps import Rule

# The paper's constants: weight of the new step against the last movement, and share of steps that must succeed.
ALPHA, RHO = 0.75, 0.75


def checkpoints(steps: int) -> list[int]:
    """Iterations at which the step size is reconsidered: 22 % in, then at intervals that shrink from 19 % to 6 %."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    # Rounded first: 0.57 * 100 is a little above 57 in floating point.
    return sorted({ceil(round(share * steps, 6)) for share in shares[1:] if share <= 1})


@torch.no_grad()
def apgd(climb: Climb, start: Tensor, *, rule: Rule, eps: float, steps: int, seed: int, worst: Worst | None) -> Tensor:
    """`steps` iterations from `start`; step sizes are its own, so `rule` does not matter, nor does `seed`."""
    x, marks = climb.reference.x, checkpoints(steps)
    x_adv = last = project(start, x, eps)
    view = climb.at(x_adv)
    if worst is not None:
        worst.settle(x_adv, view.fooled, view.value)
    best, best_value, best_gradient = x_adv.clone(), view.value, view.gradient.clone()
    value, gradient = view.value, view.gradient
    size = torch.full_like(value, 2 * eps)
    rises = torch.zeros_like(value)
    marked, value_at_mark = 0, best_value.clone()
    halved_at_mark = torch.zeros_like(value, dtype=torch.bool)
    for done in range(1, steps + 1):
        step = project(x_adv + size.view(-1, 1, 1, 1, 1) * gradient.sign(), x, eps)
        if done > 1:
            step = project(x_adv + ALPHA * (step - x_adv) + (1 - ALPHA) * (x_adv - last), x, eps)
        last, x_adv = x_adv, step
        view = climb.at(x_adv)
        if worst is not None:
            worst.settle(x_adv, view.fooled, view.value)
            if bool(worst.fooled.all()):
                break
        rises += view.value > value
        value, gradient = view.value, view.gradient
        better = value > best_value
        best[better], best_gradient[better] = x_adv[better], gradient[better]
        best_value = torch.where(better, value, best_value)
        if done in marks:
            stalled = rises <= RHO * (done - marked)
            stuck = ~halved_at_mark & (best_value <= value_at_mark)
            halved_at_mark = stalled | stuck
            size = torch.where(halved_at_mark, size / 2, size)
            # A smaller step goes on from the best point, not from where the larger one got lost.
            x_adv = torch.where(halved_at_mark.view(-1, 1, 1, 1, 1), best, x_adv)
            gradient = torch.where(halved_at_mark.view(-1, 1, 1, 1, 1), best_gradient, gradient)
            value = torch.where(halved_at_mark, best_value, value)
            rises, marked, value_at_mark = torch.zeros_like(rises), done, best_value.clone()
    return best if worst is None else worst.x

"""Baselines that ask the model for outputs only. Where one of them beats the gradients, the gradients mislead."""

import torch
from torch import Tensor

from hardroute.audit.attacks.loop import Climb, Worst, project
from hardroute.audit.attacks.noise import generators, per_clip
from hardroute.audit.attacks.steps import Rule

# Pairs of probes for one estimate, and how far they lie from the clip, in pixels (Ilyas et al. 2018).
PAIRS, SIGMA = 20, 1e-3


@torch.no_grad()
def noise(climb: Climb, start: Tensor, *, rule: Rule, eps: float, steps: int, seed: int, worst: Worst | None) -> Tensor:
    """`steps` random corners of the eps-box; a clip keeps the first that fools. `start` and `rule` do not matter."""
    x = climb.reference.x
    for draw in range(steps):
        # Far from the seeds of the attacks' own random starts.
        x_adv = project(x + eps * per_clip(x, seed + 1_000_003 * (draw + 1)).sign(), x, eps)
        if worst is not None:
            view = climb.at(x_adv, gradient=False)
            worst.settle(x_adv, view.fooled, view.value)
    return x_adv if worst is None else worst.x


@torch.no_grad()
def nes(climb: Climb, start: Tensor, *, rule: Rule, eps: float, steps: int, seed: int, worst: Worst | None) -> Tensor:
    """`steps` queries: sign steps by gradients estimated from pairs of probes (natural evolution strategies)."""
    x, draws = climb.reference.x, generators(climb.reference.x, seed)
    x_adv = project(start, x, eps)
    for _ in range(max(1, steps // (2 * PAIRS + 1))):
        view = climb.at(x_adv, gradient=False)
        if worst is not None:
            worst.settle(x_adv, view.fooled, view.value)
        estimate = torch.zeros_like(x)
        for _ in range(PAIRS):
            probe = torch.stack([torch.randn(x.shape[1:], generator=draw) for draw in draws]).to(x)
            ahead, behind = (climb.at(x_adv + side * SIGMA * probe, gradient=False).value for side in (1, -1))
            estimate += (ahead - behind).view(-1, 1, 1, 1, 1) * probe
        x_adv = project(x_adv + rule(estimate, eps) * estimate.sign(), x, eps)
    if worst is None:
        return x_adv
    view = climb.at(x_adv, gradient=False)
    worst.settle(x_adv, view.fooled, view.value)
    return worst.x

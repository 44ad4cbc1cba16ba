"""FAB: walks along the decision boundary towards the clean clip (Croce and Hein 2020b), targeted, L-infinity.

The objective is a difference of two logits, so its zero is the boundary between the label and one other class.
"""

import torch
from torch import Tensor

from hardroute.audit.attacks.loop import Climb, Worst, project
from hardroute.audit.attacks.steps import Rule

# The paper's constants: largest pull towards the clean clip, overshoot, and how far to walk back inside.
ALPHA_MAX, ETA, BETA = 0.1, 1.05, 0.9


def to_hyperplane(x: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """The point of {z in [0, 1]: <normal, z> + offset = 0} nearest to x in L-infinity; all but `offset` (N, D).

    Where the box does not reach the plane: the point of the box that comes nearest to it.
    """
    gap = (normal * x).sum(1) + offset
    weight = normal.abs()
    # Every pixel moves by the same radius towards the plane, or as far as the box lets it.
    up = (normal * -gap.sign().unsqueeze(1)) > 0
    room = torch.where(up, 1 - x, x)
    room, order = room.sort(1)
    ordered = weight.gather(1, order)
    spent = (ordered * room).cumsum(1)
    behind = ordered.flip(1).cumsum(1).flip(1)  # weight of the pixels that still have room, this one included
    reached = spent - ordered * room + room * behind  # how far the plane comes nearer at a radius of room[k]
    enough = reached >= gap.abs().unsqueeze(1)
    first = torch.where(enough.any(1), enough.int().argmax(1), enough.shape[1] - 1).unsqueeze(1)
    done = (spent - ordered * room).gather(1, first)
    radius = (gap.abs().unsqueeze(1) - done) / behind.gather(1, first).clamp_min(1e-30)
    radius = radius.clamp(min=0, max=1)
    return x + torch.where(up, torch.minimum(radius, 1 - x), -torch.minimum(radius, x)) * (weight > 0)


@torch.no_grad()
def fab(climb: Climb, start: Tensor, *, rule: Rule, eps: float, steps: int, seed: int, worst: Worst | None) -> Tensor:
    """`steps` iterations from the clean clip towards the nearest mistake, until there is one within eps.

    Neither `start`, `rule` nor `seed` matters: one restart begins at the clean clip, and draws nothing.
    """
    clean = climb.reference.x
    shape, flat = clean.shape, clean.flatten(1)
    x_adv, nearest = flat.clone(), torch.full((len(flat),), torch.inf, device=flat.device)
    best = flat.clone()
    for _ in range(steps):
        view = climb.at(x_adv.view(shape))
        normal = view.gradient.flatten(1)
        offset = view.value - (normal * x_adv).sum(1)
        both = to_hyperplane(torch.cat([x_adv, flat]), normal.repeat(2, 1), offset.repeat(2))
        from_here, from_clean = both.chunk(2)
        here, there = (from_here - x_adv).abs().amax(1), (from_clean - flat).abs().amax(1)
        pull = (here / (here + there).clamp_min(1e-30)).clamp(max=ALPHA_MAX).unsqueeze(1)
        mixed = (1 - pull) * (x_adv + ETA * (from_here - x_adv)) + pull * (flat + ETA * (from_clean - flat))
        x_adv = mixed.clamp(0, 1)
        # A pass of its own: most clips are over the boundary here (5 of 6, measured) and take their gradient elsewhere.
        fooled = climb.at(x_adv.view(shape), gradient=False).fooled
        distance = (x_adv - flat).abs().amax(1)
        better = fooled & (distance < nearest) & (nearest > eps)
        best[better], nearest = x_adv[better], torch.where(better, distance, nearest)
        x_adv = torch.where(fooled.unsqueeze(1), (1 - BETA) * flat + BETA * x_adv, x_adv)
        if worst is not None and bool((nearest <= eps).all()):
            break
    inside = project(best.view(shape), clean, eps)
    if worst is None:
        return inside
    view = climb.at(inside, gradient=False)
    worst.update(inside, view.fooled, view.value)
    return worst.x

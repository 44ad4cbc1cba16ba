"""Square Attack: random search with shrinking squares, no gradient (Andriushchenko et al. 2020), L-infinity.

On clips a square is a box in (T, H, W): half of the proposals span all frames, the others a shorter run of frames
over a larger area, of the same volume. With one frame this is the published algorithm on images.
"""

import torch
from torch import Tensor

from hardroute.audit.attacks.loop import Climb, Worst, project
from hardroute.audit.attacks.noise import generators
from hardroute.audit.attacks.steps import Rule

P_INIT = 0.8
# Queries, of 10,000, after which the share of changed pixels halves.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
DRAWN = 64  # proposals drawn at once; what is drawn for a clip does not depend on it


def share(query: int, queries: int) -> float:
    """Share of the pixels that proposal `query` of `queries` changes; the schedule stretches with the budget."""
    at = int(query / queries * 10_000)
    return P_INIT / 2 ** sum(at > halving for halving in HALVINGS)


def boxes(uniform: Tensor, share: float, size: tuple[int, int, int]) -> Tensor:
    """(N, 1, T, H, W) bool: one box for each row of `uniform` (N, 4) in [0, 1), covering about `share` of (T, H, W)."""
    frames, height, width = size
    short = max(1, round(frames * share ** (1 / 3)))
    span = torch.where(uniform[:, 0] < 0.5, frames, short)
    side = (share * height * width * frames / span).sqrt().round()
    inside = torch.ones(1, 1, 1, 1, 1, dtype=torch.bool, device=uniform.device)
    largest = max(1, min(height, width) - 1)
    extents = (span, side.clamp(1, largest), side.clamp(1, largest))
    for axis, (length, extent) in enumerate(zip(size, extents, strict=True)):
        first = (uniform[:, 1 + axis] * (length - extent + 1)).floor()
        at = torch.arange(length, device=uniform.device)
        along = (at >= first[:, None]) & (at < (first + extent)[:, None])
        shape = [len(uniform), 1, 1, 1, 1]
        shape[2 + axis] = length
        inside = inside & along.view(shape)
    return inside


@torch.no_grad()
def square(
    climb: Climb, start: Tensor, *, rule: Rule, eps: float, steps: int, seed: int, worst: Worst | None
) -> Tensor:
    """`steps` queries at most; a clip that is fooled asks no more. Neither `start` nor `rule` matters."""
    clean = climb.reference.x
    channels, *size = clean.shape[1:]
    frames, height, width = size
    draws = generators(clean, seed)

    def drawn(clips: Tensor, *shape: int) -> Tensor:
        return torch.stack([torch.rand(shape, generator=draws[clip]) for clip in clips.tolist()]).to(clean.device)

    index = torch.arange(len(clean), device=clean.device)
    stripes = (drawn(index, channels, 1, 1, width) < 0.5).to(clean.dtype) * 2 - 1
    x_adv = project(clean + eps * stripes, clean, eps)
    view = climb.at(x_adv, gradient=False)
    value, fooled = view.value.clone(), view.fooled.clone()
    for first in range(1, steps, DRAWN):
        index = (~fooled).nonzero().flatten()
        if not len(index):
            break
        proposals = drawn(index, DRAWN, 4 + channels)
        part = Climb(climb.objective, climb.reference.part(index), climb.settings)
        for query in range(first, min(first + DRAWN, steps)):
            uniform = proposals[:, query - first]
            sign = (uniform[:, 4:] < 0.5).to(clean.dtype) * 2 - 1
            inside = boxes(uniform[:, :4], share(query, steps), (frames, height, width))
            corner = project(clean[index] + eps * sign.view(-1, channels, 1, 1, 1), clean[index], eps)
            tried = torch.where(inside, corner, x_adv[index])
            view = part.at(tried, gradient=False)
            better = ((view.value > value[index]) | view.fooled) & ~fooled[index]
            moved = index[better]
            x_adv[moved], value[moved], fooled[moved] = tried[better], view.value[better], view.fooled[better]
    if worst is None:
        return x_adv
    worst.update(x_adv, fooled, value)
    return worst.x

"""Is a stronger attack stronger? Where it is not, gradients mislead it, and its robust accuracy means nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import numpy as np
from torch import Tensor

from audit.attacks import find_attack
from audit.budget import verify
from audit.chunk import AttackFunction, judge
from audit.statistics import Proportion
from models import VideoMoE

# Scale-free, through the dispatch as deployed: neither saturation nor a gate's scaling excuses its failure.
PROBE = "pgd-margin"
# Need no gradient. In a suite, each counts against the attacks that do.
BLACK_BOX = ("noise", "nes", "square")


@dataclass(frozen=True)
class Comparison:
    """Two attacks on the same clips, of which the second should fell at least as many.

    Attributes:
        weaker, stronger: what they are. weaker_only, stronger_only: clips that only this one fells.
    """

    weaker: str
    stronger: str
    weaker_only: int
    stronger_only: int

    @property
    def p(self) -> float:
        """One-sided sign test: how probable so many surprises are if neither attack is the stronger."""
        n = self.weaker_only + self.stronger_only
        return sum(comb(n, k) for k in range(self.weaker_only, n + 1)) / 2**n


@dataclass(frozen=True)
class Strength:
    """`comparisons` of attacks; `noise_only`: clips that random noise fells and the whole suite does not."""

    comparisons: tuple[Comparison, ...]
    noise_only: Proportion


def compare(
    model: VideoMoE,
    x: Tensor,
    y: Tensor,
    robust: np.ndarray,
    eps: float,
    steps: int,
    seed: int = 0,
    probe: Callable[..., Tensor] | None = None,
) -> Strength:
    """Attacks clips x (N, 3, T, H, W) with labels y (N,) with one attack at several strengths, and with noise.

    Args:
        robust: (N,) bool: right under every attack of the suite at `eps`.
        probe: the attack, by default PROBE. The model must be frozen and in eval mode.
    """
    row = find_attack(PROBE)
    attack = probe or row
    once = probe or row.but(single_step=True)

    def felled(function: AttackFunction, radius: float, iterations: int) -> np.ndarray:
        x_adv = function(model, x.clone(), y.clone(), eps=radius, steps=iterations, seed=seed)
        verify("strength", x, x_adv, radius)
        return judge(model, x_adv.detach(), y).label != y.cpu().numpy()

    strong = felled(attack, eps, steps)
    pairs = (
        (f"half of eps {eps * 255:g}/255", "the whole of it", felled(attack, eps / 2, steps), strong),
        ("one step", f"{steps} steps", felled(once, eps, 1), strong),
        (f"{steps} steps", f"{2 * steps} steps", strong, felled(attack, eps, 2 * steps)),
    )
    noisy = felled(find_attack("noise"), eps, steps)
    return Strength(
        tuple(
            Comparison(weaker, stronger, int((first & ~second).sum()), int((second & ~first).sum()))
            for weaker, stronger, first, second in pairs
        ),
        Proportion.of(noisy & robust),
    )

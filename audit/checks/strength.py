"""Is a stronger attack stronger? Where it is not, gradients mislead it, and its robust accuracy means nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hardroute.audit.attacks import find_attack
from hardroute.audit.attacks.budget import verify
from hardroute.audit.defaults import BATCH_SIZE
from hardroute.audit.evaluation.attack_batch import judge
from hardroute.audit.evaluation.attack_run import AttackFunction
from hardroute.audit.evaluation.statistics import Proportion, one_sided
from hardroute.models import VideoMoE

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
        return one_sided(self.weaker_only, self.stronger_only)


@dataclass(frozen=True)
class Strength:
    """`comparisons` of attacks on n `clips`; `noise_only`: those that noise fells and the whole suite does not."""

    comparisons: tuple[Comparison, ...]
    noise_only: Proportion
    clips: int


def compare(
    model: VideoMoE,
    x: Tensor,
    y: Tensor,
    robust: np.ndarray,
    eps: float,
    steps: int,
    seed: int = 0,
    probe: Callable[..., Tensor] | None = None,
    batch_size: int = BATCH_SIZE,
    tick: Callable[[int], None] = lambda steps: None,
) -> Strength:
    """Attacks clips x (N, 3, T, H, W) with labels y (N,) with one attack at several strengths, and with noise.

    Args:
        robust: (N,) bool: right under every attack of the suite at `eps`.
        probe: the attack, by default PROBE. The model must be frozen and in eval mode.
        tick: called with the steps times clips just done, of `work(steps)` for each clip in all.
    """
    row = find_attack(PROBE)
    attack = probe or row
    once = probe or row.but(single_step=True)

    def felled(function: AttackFunction, radius: float, iterations: int) -> np.ndarray:
        found = []
        for clips, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            x_adv = function(model, clips.clone(), labels.clone(), eps=radius, steps=iterations, seed=seed)
            verify("strength", clips, x_adv, radius)
            found.append(judge(model, x_adv.detach(), labels).label != labels.cpu().numpy())
            tick(iterations * len(clips))
        return np.concatenate(found)

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
        len(x),
    )


def work(steps: int) -> int:
    """Steps that `compare` takes for each clip."""
    return steps + steps + 1 + 2 * steps + steps

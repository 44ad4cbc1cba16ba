"""Black-box transfer: clips made to fool one model, shown to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audit.attacks import find_attack
from audit.budget import verify
from audit.chunk import judge
from audit.statistics import Proportion
from audit.untouched import device_of, untouched
from models import VideoMoE
from runtime.errors import MethodError


@dataclass(frozen=True)
class Transfer:
    """Which clips hold: every source's attack against every target, at one eps.

    Attributes:
        sources, targets: names of the models, in the order of rows and columns.
        clean: clean[target] (N,) bool: right unattacked.
        held: held[source][target] (N,) bool: right unattacked and under the clip made on the source. Where source
            and target are one model, this is its white-box result.
    """

    attack: str
    eps: float
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    clean: dict[str, np.ndarray]
    held: dict[str, dict[str, np.ndarray]]

    def accuracy(self, source: str, target: str) -> Proportion:
        """Robust accuracy of `target` under clips made on `source`, over all clips."""
        return Proportion.of(self.held[source][target])


def transfer(
    sources: Mapping[str, VideoMoE],
    targets: Mapping[str, VideoMoE],
    x: Tensor,
    y: Tensor,
    attack: str = "pgd-margin",
    eps: float = 8 / 255,
    steps: int = 10,
    seed: int = 0,
    batch_size: int = 32,
) -> Transfer:
    """Attacks each source once on all clips, and shows the result to every target.

    Args:
        sources, targets: models by name, which may be the same ones; left as they were found.
        x: (N, 3, T, H, W) float32 in [0, 1]. y: (N,) true classes.
        attack: a name in audit.attacks.ATTACKS. It stops at what fools the source: more steps, or an attack that
            goes on, may transfer better. eps: L-inf radius in raw pixels.

    Raises:
        MethodError: no source or target, or an unknown attack. BudgetError: an attack left its budget.

    Example:
        >>> transfer({"at-m": plain}, {"j-tlat": hardened}, x, y).accuracy("at-m", "j-tlat")
    """
    row = find_attack(attack)
    if not sources or not targets:
        raise MethodError("transfer needs at least one source and one target; give models by name")
    parts = torch.arange(len(x)).split(batch_size)
    clean = {name: np.concatenate([_right(model, x[at], y[at]) for at in parts]) for name, model in targets.items()}
    held: dict[str, dict[str, np.ndarray]] = {}
    for source, model in sources.items():
        made = []
        for at in parts:
            clips, labels = x[at].to(device_of(model)), y[at].to(device_of(model))
            with untouched(model):
                x_adv = row(model, clips.clone(), labels, eps=eps, steps=steps, seed=seed).detach()
            verify(attack, clips, x_adv, eps)
            made.append(x_adv.cpu())
        held[source] = {
            name: clean[name]
            & np.concatenate([_right(target, clips, y[at]) for clips, at in zip(made, parts, strict=True)])
            for name, target in targets.items()
        }
    return Transfer(attack, eps, tuple(sources), tuple(targets), clean, held)


def _right(model: VideoMoE, x: Tensor, y: Tensor) -> np.ndarray:
    with untouched(model):
        labels = y.to(device_of(model))
        return judge(model, x.to(device_of(model)), labels).label == y.cpu().numpy()

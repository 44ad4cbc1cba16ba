"""One attack on a few clips at one eps, and the verdict on what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hardroute.audit.attacks import find_attack
from hardroute.audit.attacks.budget import verify
from hardroute.audit.attacks.loop import frozen
from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.attacks.objectives import shortfall
from hardroute.audit.attacks.quantize import nearest_inside
from hardroute.audit.bundles import AUDITED
from hardroute.audit.evaluation.cost import Passes, counted
from hardroute.audit.execution.journal import Unit
from hardroute.audit.execution.precision import seen_by_attacks
from hardroute.models import VideoMoE
from hardroute.runtime.clips import to_network

AttackFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class Answer:
    """A fresh deployed forward on n clips.

    Attributes:
        label: (n,) class; -1 where the model answers NaN or infinity, which is no answer and never right.
        route: (n,) expert. margin: (n,) logit of the true class minus the best other.
        router, logits: (n, M) and (n, K) float32.
    """

    label: np.ndarray
    route: np.ndarray
    margin: np.ndarray
    router: np.ndarray
    logits: np.ndarray


def judge(model: VideoMoE, x: Tensor, y: Tensor) -> Answer:
    """What the model, as deployed, says of clips x with true classes y."""
    with torch.no_grad():
        outputs = model.outputs(x)
        logits, route = outputs.deployed, outputs.route
        margin = -shortfall(logits, y)
        answered = logits.isfinite().all(1)
        found = (
            logits.argmax(1).where(answered, -1),
            route,
            margin.where(answered, -torch.inf),
            outputs.router,
            logits,
        )
        return Answer(*(each.cpu().numpy() for each in found))


def attack_chunk(
    model: VideoMoE,
    attack: AttackFunction,
    name: str,
    radius: float,
    x: Tensor,
    y: Tensor,
    smallest: np.ndarray,
    steps: int,
    seed: int,
    passes: Passes,
    precision: str = "fp32",
) -> Unit:
    """Attacks clips x (n, 3, T, H, W) with labels y (n,). The model must be frozen and in eval mode.

    Args:
        smallest: (n,) smallest class margin of the clips in 8 bits so far at this eps.
        passes: counts on the model while this runs.
        precision: what the attack sees the model in (audit.execution.precision); the verdict is the model's own.

    Raises BudgetError if the attack left its budget.
    """
    before = passes.total.copy()
    x, y = x.to(device_of(model)), y.to(device_of(model))
    x_adv = x
    if radius:  # eps = 0 is the clean clip by definition, whatever an attack would make of it
        seen = seen_by_attacks(model, precision)
        x_adv = attack(seen, x.clone(), y.clone(), eps=radius, steps=steps, seed=seed)
    verify(name, x, x_adv, radius)
    x_adv = x_adv.detach()
    answer, frames = judge(model, x_adv, y), nearest_inside(x, x_adv, radius)
    rounded = judge(model, torch.from_numpy(to_network(frames)).to(x.device), y)
    better = rounded.margin < smallest
    return Unit(
        label=answer.label,
        route=answer.route,
        router=answer.router,
        logits=answer.logits,
        distance=(x_adv - x).double().flatten(1).norm(dim=1).cpu().numpy(),
        rounded_label=rounded.label,
        rounded_route=rounded.route,
        rounded_margin=rounded.margin,
        better=better,
        frames=frames[better],
        passes=passes.total - before,
    )


def attack_by_name(
    models: Mapping[str, VideoMoE],
    name: str,
    radius: float,
    x: np.ndarray,
    y: np.ndarray,
    smallest: np.ndarray,
    steps: int,
    seed: int,
    precision: str = "fp32",
) -> Unit:
    """`attack_chunk` with what can be sent to another process: an attack's name, and arrays in place of tensors."""
    model, clips, labels = models[AUDITED], torch.from_numpy(x), torch.from_numpy(y)
    with frozen(model), counted(model) as passes:
        return attack_chunk(
            model, find_attack(name), name, radius, clips, labels, smallest, steps, seed, passes, precision
        )

"""One attack on a few clips at one eps, and the verdict on what it returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.attacks.objectives import shortfall
from hardroute.audit.attacks.quantize import nearest_inside
from hardroute.audit.attacks.validation import answers, validate_labels
from hardroute.audit.evaluation.attack_run import AttackRun
from hardroute.audit.evaluation.cost import Passes
from hardroute.models import VideoMoE
from hardroute.runtime.clips import to_network


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


@dataclass(frozen=True)
class BatchResult:
    """What one attack did to n clips at one eps. M experts, K classes.

    Attributes:
        label, route: (n,) class (-1: no answer) and expert on the perturbed clip.
        router, logits: (n, M) and (n, K) float32 answers of router and model there.
        distance: (n,) float64 ||x - x_adv||_2.
        rounded_label, rounded_route, rounded_margin: (n,) class, expert and class margin after rounding to 8 bits.
        better: (n,) bool: the rounded margin is the clip's smallest yet.
        frames: (b, T, H, W, 3) uint8: of the b clips that are better, the rounded clip.
        passes: (4,) int64 clips that went through: router forward, router backward, experts forward, backward.
    """

    label: np.ndarray
    route: np.ndarray
    router: np.ndarray
    logits: np.ndarray
    distance: np.ndarray
    rounded_label: np.ndarray
    rounded_route: np.ndarray
    rounded_margin: np.ndarray
    better: np.ndarray
    frames: np.ndarray
    passes: np.ndarray


def judge(model: VideoMoE, x: Tensor, y: Tensor) -> Answer:
    """What the model, as deployed, says of clips x with true classes y."""
    with torch.no_grad():
        outputs = model.outputs(x)
        logits, route = outputs.deployed, outputs.route
        validate_labels(y, logits.shape[1])
        label = answers(outputs)
        found = (
            label,
            route,
            (-shortfall(logits, y)).where(label >= 0, -torch.inf),
            outputs.router,
            logits,
        )
        return Answer(*(each.cpu().numpy() for each in found))


def attack_batch(
    model: VideoMoE, run: AttackRun, x: Tensor, y: Tensor, smallest: np.ndarray, passes: Passes
) -> BatchResult:
    """Attacks clips x (n, 3, T, H, W) with labels y (n,). The model must be frozen and in eval mode.

    Args:
        run: the attack; the verdict is the model's own, in whatever precision the attack sees it.
        smallest: (n,) smallest class margin of the clips in 8 bits so far at this eps.
        passes: counts on the model while this runs.

    Raises BudgetError if the attack left its budget.
    """
    before = passes.total.copy()
    x, y = x.to(device_of(model)), y.to(device_of(model))
    x_adv = run.perturbed(model, x, y)
    answer, frames = judge(model, x_adv, y), nearest_inside(x, x_adv, run.eps)
    rounded = judge(model, torch.from_numpy(to_network(frames)).to(x.device), y)
    better = rounded.margin < smallest
    return BatchResult(
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

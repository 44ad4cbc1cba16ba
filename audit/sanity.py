"""Signs that a good robust accuracy would mean nothing: noise, dead gradients, attacks that do not bite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from audit.attacks import find_attack
from audit.budget import verify
from audit.statistics import Proportion
from audit.tally import judge
from audit.untouched import device_of, untouched
from models import VideoMoE

# Half of the pixel range: any clip can be made plain grey, so nothing can be told apart.
FAR = 0.5
# Scale-free, through the dispatch as deployed: neither saturation nor a gate's scaling excuses its failure.
FAR_ATTACK = "pgd-margin"


@dataclass(frozen=True)
class Sanity:
    """What `inspect` found on a sample of the clips.

    Attributes:
        training: names of the modules that were found in training mode.
        repeat_difference: largest difference of a logit between two forwards of the same clips, as a share of
            the largest logit (at least 1).
        batch_difference: the same between a clip alone and among others.
        dead_gradients: clips whose loss has an all-zero or non-finite gradient through the deployed path.
        far: accuracy under an attack at eps = 0.5; above chance, the attack is being hindered.
        chance: 1 / number of classes.
    """

    training: tuple[str, ...]
    repeat_difference: float
    batch_difference: float
    dead_gradients: Proportion
    far: Proportion
    chance: float


def inspect(model: VideoMoE, x: Tensor, y: Tensor, seed: int = 0, steps: int = 10, batch_size: int = 32) -> Sanity:
    """Looks at the model on clips x (N, 3, T, H, W) in [0, 1] with labels y (N,); leaves it as it was."""
    training = tuple(name or "model" for name, module in model.named_modules() if module.training)
    dead, right = [], []
    repeat = alone = 0.0
    with untouched(model):
        for some in torch.arange(len(x)).split(batch_size):
            clips, labels = x[some].to(device_of(model)), y[some].to(device_of(model))
            with torch.no_grad():
                first, again, single = model(clips), model(clips), model(clips[:1])
            repeat = max(repeat, _difference(first, again))
            alone = max(alone, _difference(first[:1], single))
            dead.append(_dead(model, clips, labels))
            far = find_attack(FAR_ATTACK)(model, clips.clone(), labels, eps=FAR, steps=steps, seed=seed)
            verify(FAR_ATTACK, clips, far, FAR)
            right.append(judge(model, far, labels).label == labels.cpu().numpy())
    return Sanity(
        training=training,
        repeat_difference=repeat,
        batch_difference=alone,
        dead_gradients=Proportion.of(np.concatenate(dead)),
        far=Proportion.of(np.concatenate(right)),
        chance=1 / first.shape[1],
    )


def _difference(first: Tensor, second: Tensor) -> float:
    """As a share of the largest logit, but at least of 1; infinite where an answer is not finite."""
    scale = first.abs().max().clamp_min(1)
    return float(((first - second).abs().max() / scale).nan_to_num(torch.inf))


def _dead(model: VideoMoE, x: Tensor, y: Tensor) -> np.ndarray:
    """(N,) bool: no attack can follow the gradient of this clip's cross-entropy."""
    clips = x.clone().requires_grad_(True)
    with torch.enable_grad():
        loss = cross_entropy(model(clips), y, reduction="sum")
        if not loss.requires_grad:
            return np.ones(len(x), bool)
        (gradient,) = torch.autograd.grad(loss, clips, allow_unused=True)
    if gradient is None:
        return np.ones(len(x), bool)
    flat = gradient.flatten(1)
    return (~flat.isfinite().all(1) | (flat == 0).all(1)).cpu().numpy()

"""Signs that a good robust accuracy would mean nothing: noise, dead gradients, attacks that do not bite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from audit.attacks import find_attack
from audit.budget import verify
from audit.chunk import judge
from audit.second import second_choices
from audit.statistics import Proportion
from audit.strength import PROBE, Strength, compare
from audit.untouched import device_of, untouched
from models import VideoMoE

# Half of the pixel range: any clip can be made plain grey, so nothing can be told apart.
FAR = 0.5
SAMPLE = 16  # clips that attacks are compared on


@dataclass(frozen=True)
class Sanity:
    """What `inspect` found; on a sample of the clips, where not said otherwise.

    Attributes:
        training: names of the modules that were found in training mode.
        repeat_difference: largest difference of a logit, of router or model, between two forwards of the same
            clips, as a share of the largest logit (at least 1).
        batch_difference: the same between a clip alone and among others.
        dead_gradients: clips whose loss has an all-zero or non-finite gradient through the deployed path.
        dead_router: clips for which the router's lead of the first expert over the second has such a gradient.
        saturated: clips whose largest class probability rounds to 1 in float32: cross-entropy sees nothing there.
        probabilities: the model gives probabilities in place of logits.
        still: clips that keep their class under an attack with eps = 0.
        far: accuracy under an attack at eps = 0.5; above chance, the attack is being hindered.
        chance: 1 / number of classes.
        strength: attacks against stronger ones.
        second: of all clips, per expert: accuracy where it is the router's second choice.
    """

    training: tuple[str, ...]
    repeat_difference: float
    batch_difference: float
    dead_gradients: Proportion
    dead_router: Proportion
    saturated: Proportion
    probabilities: bool
    still: Proportion
    far: Proportion
    chance: float
    strength: Strength
    second: tuple[Proportion, ...]


def inspect(
    model: VideoMoE,
    x: Tensor,
    y: Tensor,
    robust: np.ndarray | None = None,
    eps: float = 8 / 255,
    seed: int = 0,
    steps: int = 10,
    sample: int = SAMPLE,
) -> Sanity:
    """Looks at the model on clips x (N, 3, T, H, W) in [0, 1] with labels y (N,); leaves it as it was.

    `robust` (N,) bool: what held under the audit's suite at `eps`, to be held against random noise.
    """
    training = tuple(name or "model" for name, module in model.named_modules() if module.training)
    some = np.linspace(0, len(x) - 1, min(len(x), sample)).round().astype(int)
    held = np.zeros(len(x), bool) if robust is None else robust
    with untouched(model):
        clips, labels = x[some].to(device_of(model)), y[some].to(device_of(model))
        first, again = judge(model, clips, labels), judge(model, clips, labels)
        alone = judge(model, clips[:1], labels[:1])
        logits = torch.from_numpy(first.logits)
        far = find_attack(PROBE)(model, clips.clone(), labels, eps=FAR, steps=steps, seed=seed)
        verify(PROBE, clips, far, FAR)
        nothing = find_attack(PROBE)(model, clips.clone(), labels, eps=0.0, steps=1, seed=seed)
        return Sanity(
            training=training,
            repeat_difference=max(_difference(first.logits, again.logits), _difference(first.router, again.router)),
            batch_difference=max(
                _difference(first.logits[:1], alone.logits), _difference(first.router[:1], alone.router)
            ),
            dead_gradients=Proportion.of(_dead(clips, lambda x: cross_entropy(model(x), labels, reduction="sum"))),
            dead_router=Proportion.of(
                np.zeros(len(clips), bool) if len(model.experts) < 2 else _dead(clips, lambda x: _lead(model, x))
            ),
            saturated=Proportion.of((logits.softmax(1).amax(1) == 1).numpy()),
            probabilities=bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-4).all()),
            still=Proportion.of(judge(model, nothing, labels).label == first.label),
            far=Proportion.of(judge(model, far, labels).label == labels.cpu().numpy()),
            chance=1 / logits.shape[1],
            strength=compare(model, clips, labels, held[some], eps, steps, seed),
            second=second_choices(model, x, y),
        )


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """As a share of the largest logit, but at least of 1; infinite where an answer is not finite."""
    scale = max(1.0, float(np.abs(first).max()))
    largest = float(np.abs(first - second).max()) / scale
    return largest if np.isfinite(largest) else np.inf


def _lead(model: VideoMoE, x: Tensor) -> Tensor:
    top = model.router(x).topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]).sum()


def _dead(x: Tensor, value: Callable[[Tensor], Tensor]) -> np.ndarray:
    """(N,) bool: no attack can follow this clip's gradient of `value`, a sum over clips."""
    clips = x.clone().requires_grad_(True)
    with torch.enable_grad():
        total = value(clips)
        if not total.requires_grad:
            return np.ones(len(x), bool)
        (gradient,) = torch.autograd.grad(total, clips, allow_unused=True)
    if gradient is None:
        return np.ones(len(x), bool)
    flat = gradient.flatten(1)
    return (~flat.isfinite().all(1) | (flat == 0).all(1)).cpu().numpy()

"""Signs that a good robust accuracy would mean nothing: noise, dead gradients, attacks that do not bite."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hardroute.audit.attacks import find_attack
from hardroute.audit.attacks.budget import verify
from hardroute.audit.attacks.model_state import device_of, untouched
from hardroute.audit.checks.second_choice import second_choices
from hardroute.audit.checks.strength import PROBE, Strength, compare, work
from hardroute.audit.defaults import BATCH_SIZE, EPS, STEPS
from hardroute.audit.evaluation.attack_batch import judge
from hardroute.audit.evaluation.cost import counted
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.models import VideoMoE

# Half of the pixel range: any clip can be made plain grey, so nothing can be told apart.
FAR = 0.5
# Clips that attacks are compared on: with 64, an attack that loses 9 of them and wins none is seen.
SAMPLE = 64


@dataclass(frozen=True)
class Sanity:
    """What `inspect` found; on a sample of the clips that are right unattacked, where not said otherwise.

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
        passes: clips that went through the model for all of this: hardroute.audit.evaluation.cost.KINDS.
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
    passes: np.ndarray


def inspect(
    model: VideoMoE,
    x: Tensor,
    y: Tensor,
    robust: np.ndarray | None = None,
    eps: float = EPS,
    seed: int = 0,
    steps: int = STEPS,
    sample: int = SAMPLE,
    clean: np.ndarray | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Sanity:
    """Looks at the model on clips x (N, 3, T, H, W) in [0, 1] with labels y (N,); leaves it as it was.

    Args:
        robust: (N,) bool: what held under the audit's suite at `eps`, to be held against random noise.
        clean: (N,) bool: what is right unattacked, which the sample is taken from. A clip that is wrong anyway says
            nothing of an attack. All clips where left out, or where none is right.
        progress: called with (done, total, what), in steps of attacks on clips.
    """
    training = tuple(name or "model" for name, module in model.named_modules() if module.training)
    known = np.arange(len(x)) if clean is None or not clean.any() else np.flatnonzero(clean)
    some = known[np.linspace(0, len(known) - 1, min(len(known), sample)).round().astype(int)]
    held = np.zeros(len(x), bool) if robust is None else robust
    device, done, total = device_of(model), 0, len(some) * (steps + work(steps))

    def tick(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, total, "looking for masked gradients")

    with untouched(model), counted(model) as passes:
        clips, labels = x[some].to(device), y[some].to(device)
        batches = list(zip(clips.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True))
        tick(0)
        first, again = ([judge(model, *batch) for batch in batches] for _ in range(2))
        alone = judge(model, clips[:1], labels[:1])
        logits = torch.from_numpy(np.concatenate([each.logits for each in first]))
        label = np.concatenate([each.label for each in first])
        far = []
        for batch in batches:
            far.append(_attacked(model, *batch, FAR, steps, seed))
            tick(steps * len(batch[0]))
        nothing = np.concatenate([_attacked(model, *batch, 0.0, 1, seed) for batch in batches])
        return Sanity(
            training=training,
            repeat_difference=max(
                _difference(getattr(one, part), getattr(other, part))
                for one, other in zip(first, again, strict=True)
                for part in ("logits", "router")
            ),
            batch_difference=max(
                _difference(getattr(first[0], part)[:1], getattr(alone, part)) for part in ("logits", "router")
            ),
            dead_gradients=_share(
                _dead(*batch, lambda x, y: cross_entropy(model(x), y, reduction="sum")) for batch in batches
            ),
            dead_router=_share(
                _dead(*batch, lambda x, y: _lead(model, x)) if len(model.experts) > 1 else np.zeros(len(batch[0]), bool)
                for batch in batches
            ),
            saturated=Proportion.of((logits.softmax(1).amax(1) == 1).numpy()),
            probabilities=bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-4).all()),
            still=Proportion.of(nothing == label),
            far=Proportion.of(np.concatenate(far) == labels.cpu().numpy()),
            chance=1 / logits.shape[1],
            strength=compare(model, clips, labels, held[some], eps, steps, seed, batch_size=BATCH_SIZE, tick=tick),
            second=second_choices(model, x, y),
            passes=passes.total,
        )


def _attacked(model: VideoMoE, x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> np.ndarray:
    """(N,) class under PROBE."""
    x_adv = find_attack(PROBE)(model, x.clone(), y, eps=eps, steps=steps, seed=seed)
    verify(PROBE, x, x_adv, eps)
    return judge(model, x_adv, y).label


def _share(parts: Iterable[np.ndarray]) -> Proportion:
    return Proportion.of(np.concatenate(list(parts)))


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """As a share of the largest logit, but at least of 1; infinite where an answer is not finite."""
    scale = max(1.0, float(np.abs(first).max()))
    largest = float(np.abs(first - second).max()) / scale
    return largest if np.isfinite(largest) else np.inf


def _lead(model: VideoMoE, x: Tensor) -> Tensor:
    top = model.router(x).topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]).sum()


def _dead(x: Tensor, y: Tensor, value: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
    """(N,) bool: no attack can follow this clip's gradient of `value`, a sum over clips."""
    clips = x.clone().requires_grad_(True)
    with torch.enable_grad():
        total = value(clips, y)
        if not total.requires_grad:
            return np.ones(len(x), bool)
        (gradient,) = torch.autograd.grad(total, clips, allow_unused=True)
    if gradient is None:
        return np.ones(len(x), bool)
    flat = gradient.flatten(1)
    return (~flat.isfinite().all(1) | (flat == 0).all(1)).cpu().numpy()

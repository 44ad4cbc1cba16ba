"""Gradients that attacks can follow, and logits that cross-entropy still tells apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor
from torch.nn.functional import cross_entropy

from hardroute.audit.checks.check import Check, Judgement, at_most
from hardroute.audit.checks.context import Context
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.policy import Policy

MAX_SATURATED = 0.25  # share of clips


def of_loss(context: Context) -> Proportion:
    """Clips whose loss has an all-zero or non-finite gradient through the deployed path."""
    return _dead(context, lambda x, y: cross_entropy(context.model(x), y, reduction="sum"))


def of_router(context: Context) -> Proportion:
    """Clips for which the router's lead of the first expert over the second has such a gradient."""
    if len(context.model.experts) < 2:  # no lead to lose
        return Proportion(0, len(context.sample))

    def lead(x: Tensor, y: Tensor) -> Tensor:
        top = context.model.router(x).topk(2, dim=1).values
        return (top[:, 0] - top[:, 1]).sum()

    return _dead(context, lead)


def judge(dead: Proportion, policy: Policy) -> Judgement:
    return at_most(dead.share, policy.thresholds.max_dead_gradients)


def _dead(context: Context, value: Callable[[Tensor, Tensor], Tensor]) -> Proportion:
    return Proportion.of(np.concatenate([dead(*batch, value) for batch in context.batches]))


def dead(x: Tensor, y: Tensor, value: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
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


USABLE = Check(
    "usable gradients",
    of_loss,
    judge,
    lambda dead, judged: (
        f"{dead.successes} of {dead.n} clips give an attack no gradient to follow (all zero, or not finite)."
    ),
    record=lambda dead: {"dead_gradients": dead.as_dict()},
)
USABLE_ROUTER = Check(
    "usable router gradients",
    of_router,
    judge,
    lambda dead, judged: f"{dead.successes} of {dead.n} clips give an attack on the router no gradient to follow.",
    record=lambda dead: {"dead_router": dead.as_dict()},
)


@dataclass(frozen=True)
class Saturation:
    """`saturated`: clips whose largest class probability rounds to 1 in float32, where cross-entropy sees nothing.

    `probabilities`: the model gives probabilities in place of logits.
    """

    saturated: Proportion
    probabilities: bool


def saturation(context: Context) -> Saturation:
    logits = torch.from_numpy(np.concatenate([each.logits for each in context.answers]))
    return Saturation(
        Proportion.of((logits.softmax(1).amax(1) == 1).numpy()),
        bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-4).all()),
    )


def _judge_saturation(found: Saturation, policy: Policy) -> Judgement:
    return at_most(1.0 if found.probabilities else found.saturated.share, MAX_SATURATED)


def _say_saturation(found: Saturation, judged: Judgement) -> str:
    if found.probabilities:
        return "The model gives probabilities where logits belong: cross-entropy attacks lose their way there."
    return (
        f"For {found.saturated.successes} of {found.saturated.n} clips the largest class probability rounds to 1: "
        "cross-entropy has next to no gradient there."
    )


def _record_saturation(found: Saturation) -> Mapping[str, JsonValue]:
    return {"saturated": found.saturated.as_dict(), "probabilities": found.probabilities}


UNSATURATED = Check("unsaturated outputs", saturation, _judge_saturation, _say_saturation, _record_saturation)

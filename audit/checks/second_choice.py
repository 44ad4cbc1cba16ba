"""How good is the expert that a clip would get next? A push of the router is all that keeps it away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.checks.check import Check, Judgement, at_least
from hardroute.audit.checks.context import Context
from hardroute.audit.defaults import BATCH_SIZE
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.policy import Policy
from hardroute.models import VideoMoE

FEWEST = 10  # clips: an expert that is second for fewer has not been seen enough to be judged


@dataclass(frozen=True)
class Second:
    """Per expert: accuracy where it is the router's second choice; empty for a model of one expert."""

    choices: tuple[Proportion, ...]
    chance: float

    @property
    def weakest(self) -> int | None:
        """The expert with the lowest share; None if none is the second choice of FEWEST clips or more."""
        judged = [j for j, found in enumerate(self.choices) if found.n >= FEWEST]
        return min(judged, key=lambda j: self.choices[j].share) if judged else None


def measure(context: Context) -> Second:
    """On all clips, not only on the sample."""
    return Second(second_choices(context.model, context.x, context.y), context.chance)


def second_choices(model: VideoMoE, x: Tensor, y: Tensor, batch_size: int = BATCH_SIZE) -> tuple[Proportion, ...]:
    """Per expert, of the clips x (N, 3, T, H, W) that it is the router's second choice for: those it gets right.

    Empty for a model of one expert. The model must be in eval mode.
    """
    if len(model.experts) < 2:
        return ()
    experts, right = [], []
    with torch.no_grad():
        for some in torch.arange(len(x)).split(batch_size):
            outputs = model.outputs(x[some].to(device_of(model)))
            second = outputs.router.topk(2, dim=1).indices[:, 1]
            experts.append(second.cpu().numpy())
            right.append((outputs.expert(second).argmax(1).cpu() == y[some].cpu()).numpy())
    chosen, held = np.concatenate(experts), np.concatenate(right)
    return tuple(Proportion.of(held[chosen == j]) for j in range(len(model.experts)))


def judge(found: Second, policy: Policy) -> Judgement:
    asked = policy.thresholds.min_second_choice
    bound = found.chance if asked is None else asked
    return at_least(1.0 if found.weakest is None else found.choices[found.weakest].low, bound)


def describe(found: Second, judged: Judgement) -> str:
    if found.weakest is None:
        return f"No expert is the router's second choice for {FEWEST} clips or more, so none could be judged."
    worst = found.choices[found.weakest]
    return (
        f"Expert {found.weakest} is the router's second choice for {worst.n} clips and classifies {worst.successes} of "
        f"them right: {worst}. A push of the router is all that keeps them from it."
    )


def record(found: Second) -> Mapping[str, JsonValue]:
    return {"second_choice": [each.as_dict() for each in found.choices]}


WEAKEST_EXPERT = Check("weakest expert", measure, judge, describe, record)

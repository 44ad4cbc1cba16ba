"""How good is the expert that a clip would get next? A push of the router is all that keeps it away."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.defaults import BATCH_SIZE
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.models import VideoMoE

FEWEST = 10  # clips: an expert that is second for fewer has not been seen enough to be judged


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


def weakest(choices: tuple[Proportion, ...]) -> int | None:
    """The expert with the lowest share; None if none is the second choice of FEWEST clips or more."""
    judged = [j for j, found in enumerate(choices) if found.n >= FEWEST]
    return min(judged, key=lambda j: choices[j].share) if judged else None

"""The network that an audit attacks, with its router's scores brought to one size.

The largest score decides, so a positive factor on all of them changes no route and no answer. But an attack that adds a
router's loss to a class loss hardly sees a router with small scores: a network could look steady for its scale alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.defaults import BATCH_SIZE
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.models import VideoMoE


@dataclass(frozen=True)
class Subject:
    """An audited model as attacks see it; made by `of`.

    Attributes:
        model: the same routes and logits, from scores with a spread of about one.
        spread: of the scores as they were found: how far a clip's lie from their mean over the experts, root mean
            square over clips; NaN where a score is not finite.
    """

    model: VideoMoE
    spread: float

    @classmethod
    def of(cls, model: VideoMoE, x: Tensor) -> Subject:
        """From the model, which is left as it is, and clips (N, C, T, H, W) that tell how large its scores are."""
        found = spread(model, x)
        factor = factor_for(found)
        return cls(model if factor == 1 else VideoMoE(Scaled(model.router, factor), model.experts).eval(), found)

    @property
    def factor(self) -> float:
        """What the scores were multiplied by: a power of two, so that none of them is rounded."""
        return factor_for(self.spread)

    def as_found(self, evaluation: Evaluation) -> Evaluation:
        """An evaluation of `model`, with the router's slopes of the scores as they were found."""
        measures = {
            name: {
                eps: replace(each, router_slope=each.router_slope * (1 / self.factor)) for eps, each in by_eps.items()
            }
            for name, by_eps in evaluation.measures.items()
        }
        return replace(evaluation, measures=measures)


class Scaled(nn.Module):
    """A router whose scores are multiplied by a constant: (N, C, T, H, W) -> (N, M)."""

    def __init__(self, router: nn.Module, factor: float) -> None:
        super().__init__()
        self.router, self.factor = router, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.router(x)


@torch.no_grad()
def spread(model: VideoMoE, x: Tensor) -> float:
    """See `Subject.spread`."""
    where = device_of(model)
    scores = torch.cat([model.router(batch.to(where)).double() for batch in x.split(BATCH_SIZE)])
    return float((scores - scores.mean(1, keepdim=True)).square().mean().sqrt())


def factor_for(spread: float) -> float:
    """The power of two that brings scores of this spread nearest to a spread of one; 1 where they have no size."""
    return 2.0 ** round(-math.log2(spread)) if math.isfinite(spread) and spread > 0 else 1.0

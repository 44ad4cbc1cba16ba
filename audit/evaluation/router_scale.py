"""The router's scores, brought to one size before they are attacked.

The largest score decides, so a positive factor on all of them changes no route and no answer. But an attack that adds a
router's loss to a class loss hardly sees a router with small scores: a network could look steady for its scale alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hardroute.audit.attacks.model_state import device_of
from hardroute.models import VideoMoE

BATCH = 32


class Scaled(nn.Module):
    """A router whose scores are multiplied by a constant: (N, C, T, H, W) -> (N, M)."""

    def __init__(self, router: nn.Module, factor: float) -> None:
        super().__init__()
        self.router, self.factor = router, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.router(x)


@torch.no_grad()
def spread(model: VideoMoE, x: Tensor) -> float:
    """How far a clip's scores lie from their mean over the experts, root mean square over clips x (N, C, T, H, W).

    NaN where a score is not finite.
    """
    where = device_of(model)
    scores = torch.cat([model.router(x[i : i + BATCH].to(where)).double() for i in range(0, len(x), BATCH)])
    return float((scores - scores.mean(1, keepdim=True)).square().mean().sqrt())


def factor_for(spread: float) -> float:
    """The power of two, so that no score is rounded, that brings scores of this spread nearest to a spread of one."""
    return 2.0 ** round(-math.log2(spread)) if math.isfinite(spread) and spread > 0 else 1.0


def scaled(models: Mapping[str, VideoMoE], factors: Mapping[str, float]) -> dict[str, VideoMoE]:
    """The models with their routers' scores multiplied by the factor of the same name; none for 1."""
    return {
        name: model if factors[name] == 1 else VideoMoE(Scaled(model.router, factors[name]), model.experts).eval()
        for name, model in models.items()
    }

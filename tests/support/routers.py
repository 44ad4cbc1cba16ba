"""Untrained routers that send clips to every expert."""

from __future__ import annotations

import torch

from hardroute.models import VideoMoE
from hardroute.models.router import ConvRouter


def spread_routes(model: VideoMoE, clips: torch.Tensor) -> None:
    """Centre and stretch the router's scores over `clips` (N, 3, T, H, W): a random network's hardly differ."""
    with torch.no_grad():
        assert isinstance(model.router, ConvRouter)
        scores = model.router(clips) / model.router.gain
        score = model.router.get_submodule("score")
        assert isinstance(score, torch.nn.Linear)
        score.weight.mul_(100)
        score.bias.copy_(100 * (score.bias - scores.mean(0)))

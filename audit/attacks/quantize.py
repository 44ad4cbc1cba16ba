"""Perturbed clips as 8-bit frames: what a camera, a file and the deployed runtime can carry."""

import numpy as np
import torch
from torch import Tensor

SLACK = 1e-3  # in 1/255 steps: float32 rounding of x * 255, far below half a step


def to_frames(x: Tensor) -> np.ndarray:
    """(N, 3, T, H, W) in [0, 1] -> (N, T, H, W, 3) uint8, rounded to the nearest step."""
    return _frames((x * 255).round())


def nearest_inside(x: Tensor, x_adv: Tensor, eps: float) -> np.ndarray:
    """The 8-bit frames (N, T, H, W, 3) nearest to `x_adv` that lie in the eps-box around `x`.

    A value that rounds out of the box is moved back towards the clean one. If x is not itself 8-bit and eps
    is below half a step, the box may hold no 8-bit value; then the one just below the box is taken.
    """
    low = ((x - eps) * 255 - SLACK).ceil().clamp(0, 255)
    high = ((x + eps) * 255 + SLACK).floor().clamp(0, 255)
    return _frames(torch.minimum(torch.maximum((x_adv * 255).round(), low), high))


def _frames(steps: Tensor) -> np.ndarray:
    return np.ascontiguousarray(steps.to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy())

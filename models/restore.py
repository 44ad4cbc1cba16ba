"""A restoration network before router and experts, as in OUDefend (Lo et al. 2021).

Two branches see the clip: an under-complete one at half and quarter size, which keeps what is large, and an
over-complete one at twice the size, whose small receptive field keeps detail. What they say is added to the clip.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, (1, stride, stride), 1, bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


def exact_on_cpu(x: Tensor) -> AbstractContextManager[object]:
    """No bfloat16 on a processor, whose gradients of wide planes corrupt memory (training.precision.WIDE)."""
    return nullcontext() if x.is_cuda else torch.autocast("cpu", enabled=False)


class OverUnder(nn.Module):
    """(N, 3, T, H, W) in [0, 1] -> the same shape and range. `width`: channels of the first layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_half, self.to_quarter = _conv(3, width, stride=2), _conv(width, 2 * width, stride=2)
        self.from_quarter, self.from_half = _conv(2 * width, width), _conv(width, width)
        self.at_double, self.from_double = _conv(3, width), _conv(width, width, stride=2)
        self.residual = nn.Conv3d(2 * width, 3, kernel_size=1)
        # Starts as the identity, so that training begins with the clips as they are.
        nn.init.zeros_(self.residual.weight)
        assert self.residual.bias is not None  # noqa: S101
        nn.init.zeros_(self.residual.bias)

    def forward(self, x: Tensor) -> Tensor:
        frames, height, width = x.shape[2:]
        half = self.to_half(x)
        under = self.from_quarter(interpolate(self.to_quarter(half), size=half.shape[2:]))
        under = self.from_half(interpolate(under, size=(frames, height, width)))
        with exact_on_cpu(x):
            over = self.from_double(self.at_double(interpolate(x, size=(frames, 2 * height, 2 * width))))
        return (x + self.residual(torch.cat([under, over], dim=1))).clamp(0, 1)


class Restored(nn.Module):
    """A network behind a restoration network that it may share with others."""

    def __init__(self, front: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.front, self.network = front, network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.front(x))

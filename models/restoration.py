"""A restoration network before router and experts, as in OUDefend (Lo et al. 2021).

Two branches see the clip: an under-complete one at half and quarter size, which keeps what is large, and an
over-complete one at twice the size, whose small receptive field keeps detail. What they say is added to the clip.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, interpolate, pad

from hardroute.models.normalize import BatchNorm3d


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, (1, stride, stride), 1, bias=False),
        BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


class StripConv3d(nn.Conv3d):
    """A 3x3x3 convolution of stride 1, padded by 1, that takes wide planes in strips where bfloat16 needs it to.

    In torch 2.13 the bfloat16 weight gradient of some 3D convolutions writes past its memory on processors with matrix
    tiles, if their planes are wide (seen from 72 pixels on, never up to 65).
    """

    WIDEST = 64

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda or not torch.is_autocast_enabled("cpu") or x.shape[-1] <= self.WIDEST:
            return super().forward(x)
        width, x = x.shape[-1], pad(x, (1, 1))
        strips = [x[..., i : min(i + self.WIDEST, width) + 2] for i in range(0, width, self.WIDEST)]
        return torch.cat([conv3d(strip, self.weight, None, 1, (1, 1, 0)) for strip in strips], dim=-1)


class OverUnder(nn.Module):
    """(N, 3, T, H, W) in [0, 1] -> the same shape and range. `width`: channels of the first layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_half, self.to_quarter = _conv(3, width, stride=2), _conv(width, 2 * width, stride=2)
        self.from_quarter, self.from_half = _conv(2 * width, width), _conv(width, width)
        self.at_double, self.from_double = _conv(3, width), _conv(width, width, stride=2)
        self.at_double[0] = StripConv3d(3, width, 3, 1, 1, bias=False)
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
        over = self.from_double(self.at_double(interpolate(x, size=(frames, 2 * height, 2 * width))))
        return (x + self.residual(torch.cat([under, over], dim=1))).clamp(0, 1)


class Restored(nn.Module):
    """A network behind a restoration network that it may share with others."""

    def __init__(self, front: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.front, self.network = front, network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.front(x))

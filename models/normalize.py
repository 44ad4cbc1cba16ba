"""Normalisation: per channel as the first layer of every network, and by batches within it.

The first sits inside the network, so that attacks measure their budget in raw pixels and the exported graph takes the
same [0, 1] clips as the PyTorch twin.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

# The statistics that published Kinetics-400 video networks were trained with; keeping them lets such weights load.
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


class BatchNorm3d(nn.BatchNorm3d):
    """Batch norm that takes a batch of a single value per channel by the statistics gathered so far.

    Such a value has no spread to be normalised by. It comes where a router sends one clip to an expert whose last
    stages see one frame of one pixel.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


class Normalize(nn.Module):
    """(N, 3, T, H, W) in [0, 1] -> (x - mean) / std per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...] = KINETICS_MEAN, std: tuple[float, ...] = KINETICS_STD) -> None:
        super().__init__()
        # Not persistent: a constant of the architecture, so a checkpoint cannot smuggle in another one.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # Convolutions of few channels run 1.5 to 3 times faster on two CPU cores when channels lie innermost.
        innermost = x.contiguous(memory_format=torch.channels_last_3d)
        if torch.compiler.is_exporting():
            return (innermost - self.mean) / self.std
        # Three channels are too few to fill a vector: rows of pixels are, ten times as fast.
        n, channels, frames, height, width = x.shape
        rows = innermost.permute(0, 2, 3, 4, 1).reshape(n, frames, height, width * channels)
        rows = (rows - self.mean.flatten().repeat(width)) / self.std.flatten().repeat(width)
        return rows.view(n, frames, height, width, channels).permute(0, 4, 1, 2, 3)

"""Small routed models with known answers, for the tests of the audit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import VideoMoE
from models.router import ConstantRouter

SHAPE = (3, 4, 6, 6)


class Linear(nn.Module):
    """Logits linear in the pixels: gradients are exact everywhere, so attacks have closed forms."""

    def __init__(self, outputs: int, shape: tuple[int, ...] = SHAPE, scale: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(int(torch.tensor(shape).prod()), outputs)
        with torch.no_grad():
            self.layer.weight.mul_(scale)
            # Centre on grey, so that both sides of every boundary are met.
            self.layer.bias.copy_(-self.layer.weight.sum(1) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


def single(classes: int = 2) -> VideoMoE:
    return VideoMoE(ConstantRouter(), [Linear(classes)]).eval()


def mixture(experts: int = 3, classes: int = 4) -> VideoMoE:
    return VideoMoE(Linear(experts), [Linear(classes) for _ in range(experts)]).eval()


def eight_bit_clips(n: int, seed: int = 0, shape: tuple[int, ...] = SHAPE, margin: int = 64) -> Tensor:
    """Clips on the 8-bit grid, far enough from black and white that no box of up to `margin` steps is cut."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(margin, 256 - margin, (n, *shape), generator=generator).float() / 255


def answers(model: VideoMoE, x: Tensor) -> Tensor:
    """The model's own labels: every clip counts as right unattacked."""
    with torch.no_grad():
        return model(x).argmax(1)

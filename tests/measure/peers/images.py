"""A small image classifier, half hardened, on gratings whose class is their angle: for libraries that know no clips."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.measure.bench.attacking import minimal

SIDE = 16


def gratings(n: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """(N, 3, 16, 16) images on the 8-bit grid, and their classes (N,)."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator)

    y = torch.randint(0, classes, (n,), generator=generator)
    angle = (y * pi / classes + 0.12 * torch.randn(n, generator=generator)).view(-1, 1, 1)
    down, across = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    wave = torch.sin(1.1 * (across * angle.cos() + down * angle.sin()) + 2 * pi * uniform(1, 1))
    colour = torch.randn(n, 3, 1, 1, generator=generator).sign()
    noise = torch.randn(n, 3, SIDE, SIDE, generator=generator)
    x = 0.5 + (0.1 + 0.1 * uniform(1, 1, 1)) * wave.unsqueeze(1) * colour + 0.08 * noise
    return (x.clamp(0, 1) * 255).round() / 255, y


def classifier(classes: int, seed: int = 0, epochs: int = 14) -> nn.Module:
    """A CNN trained on images attacked with three steps, so that some stand and some fall."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flat = 24 * (SIDE // 4) ** 2
        model = nn.Sequential(
            *(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(flat, 32), nn.ReLU(), nn.Linear(32, classes)),
        )
        x, y = gratings(3000, classes, seed + 1)
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        for epoch in range(epochs):
            for some in torch.randperm(len(x)).split(100):
                clips = x[some]
                if epoch > 1:
                    clips = minimal(model, clips, y[some], 8 / 255, 3 / 255, 3, random_start=True)
                model.requires_grad_(True)
                optimizer.zero_grad()
                cross_entropy(model(clips), y[some]).backward()
                optimizer.step()
    return model.eval().requires_grad_(False)


class OneFrame(nn.Module):
    """An image classifier as an expert: a clip (N, C, 1, H, W) is its only frame."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x[:, :, 0])

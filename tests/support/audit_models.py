"""Small routed models with known answers, for the tests of the audit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hardroute.audit.policy import Policy
from hardroute.models import VideoMoE
from hardroute.models.router import ConstantRouter

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


def sound_mixture(classes: int = 3, experts: int = 3) -> VideoMoE:
    """Every expert knows every class, and the router shares clips out by what classes do not tell."""
    generator = torch.Generator().manual_seed(7)
    size = int(torch.tensor(SHAPE).prod())
    parts, router = [Linear(classes) for _ in range(experts)], Linear(experts)
    with torch.no_grad():
        for each in parts:
            each.layer.weight.copy_(templates(classes).flatten(1) / 10)
            each.layer.weight.add_(0.02 * torch.randn(classes, size, generator=generator))
            each.layer.bias.copy_(-each.layer.weight.sum(1) / 2)
        router.layer.weight.copy_(torch.randn(experts, size, generator=generator))
        router.layer.bias.copy_(-router.layer.weight.sum(1) / 2)
    return VideoMoE(router, list[nn.Module](parts)).eval()


def templates(classes: int) -> Tensor:
    """(classes, *SHAPE) of -1 and 1: the patterns that `class_clips` show."""
    return torch.randn(classes, *SHAPE, generator=torch.Generator().manual_seed(5)).sign()


def class_clips(n: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """8-bit clips of faint patterns in noise, and their classes, in turn."""
    y = torch.arange(n) % classes
    noise = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(6))
    return ((0.5 + 0.04 * templates(classes)[y] + 0.1 * noise).clamp(0, 1) * 255).round() / 255, y


def with_bounds(policy: Policy, **bounds: float | None) -> Policy:
    """The policy with other thresholds."""
    return policy.model_copy(update={"thresholds": policy.thresholds.model_copy(update=bounds)})


def with_attacks(policy: Policy, **settings: Any) -> Policy:
    """The policy with other attacks."""
    return policy.model_copy(update={"attacks": policy.attacks.model_copy(update=settings)})

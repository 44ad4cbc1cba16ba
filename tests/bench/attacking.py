"""PGD-10 against the shortest loop that does it: autograd.grad on x, weights frozen."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from audit.attacks import ATTACKS
from runtime.clips import to_network
from tests.bench.measure import Ratio, compare
from tests.bench.subject import Subject


def attacking(subject: Subject) -> list[Ratio]:
    twin, eps = subject.twin, 8 / 255
    x, y = torch.from_numpy(to_network(subject.frames[:16])), torch.from_numpy(subject.labels[:16])

    def minimal() -> None:
        twin.requires_grad_(False)
        x_adv = (x + eps * torch.empty_like(x).uniform_(-1, 1)).clamp(0, 1)
        for _ in range(10):
            x_adv.requires_grad_(True)
            (gradient,) = torch.autograd.grad(cross_entropy(twin(x_adv), y, reduction="sum"), x_adv)
            x_adv = torch.min(torch.max(x_adv.detach() + eps / 4 * gradient.sign(), x - eps), x + eps).clamp(0, 1)

    def ours() -> None:
        ATTACKS["pgd-hard"](twin, x, y, eps, steps=10)

    return [compare("PGD-10 / minimal loop, 16 clips", ours, minimal, goal=1.05, turns=7)]

"""The attacks: PGD-10 against the shortest loop that does it, and what a suite costs with fallen clips removed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from hardroute import evaluate
from hardroute.audit.attacks import ATTACKS
from hardroute.audit.evaluation.cost import spent
from hardroute.runtime.clips import to_network
from tests.measure.bench.measure import Ratio, compare
from tests.measure.bench.memory import peak_bytes
from tests.measure.bench.subject import Subject

EPS = 8 / 255
SUITE, STEPS = "standard", 10


def minimal(model: Module, x: Tensor, y: Tensor, eps: float, size: float, steps: int, random_start: bool) -> Tensor:
    """PGD in as few lines as it takes: autograd.grad on x, weights frozen; the last iterate, unjudged."""
    model.requires_grad_(False)
    x_adv = (x + eps * torch.empty_like(x).uniform_(-1, 1)).clamp(0, 1) if random_start else x
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
        x_adv = torch.min(torch.max(x_adv.detach() + size * gradient.sign(), x - eps), x + eps).clamp(0, 1)
    return x_adv


def attacking(subject: Subject) -> list[Ratio]:
    twin = subject.twin
    x, y = torch.from_numpy(to_network(subject.frames[:16])), torch.from_numpy(subject.labels[:16])

    def plain() -> Tensor:
        return minimal(twin, x, y, EPS, EPS / 4, 10, random_start=True)

    def ours() -> Tensor:
        return ATTACKS["pgd-hard"](twin, x, y, EPS, steps=10)

    def last() -> Tensor:
        return ATTACKS["pgd-hard"].but(keep="last")(twin, x, y, EPS, steps=10)

    return [
        # What the minimal loop does; then what an audit does, which judges the last iterate too, an eleventh forward.
        compare(f"PGD-10, last iterate / minimal loop, {len(x)} clips", last, plain, goal=1.05, turns=15),
        compare(f"PGD-10, worst iterate / minimal loop, {len(x)} clips", ours, plain, goal=1.05, turns=15),
        Ratio.counted("PGD-10 / minimal loop, memory held", peak_bytes(ours) / 2**20, peak_bytes(plain) / 2**20, "MiB"),
        *(passes(subject, eps) for eps in (8 / 255, 16 / 255)),
    ]


def passes(subject: Subject, eps: float) -> Ratio:
    """Forward passes plus backward passes of a clip through an expert, verdicts included, over the whole suite."""
    x, y = torch.from_numpy(to_network(subject.frames[::2])), torch.from_numpy(subject.labels[::2])
    result = evaluate(subject.twin, x, y, eps=(eps,), suite=SUITE, steps=STEPS, thorough=False)
    report = spent(result.costs, len(x))
    removed, everything = (report[key]["expert_passes"] for key in ("spent", "without_removal"))
    name = f"suite '{SUITE}', {STEPS} steps, eps {eps * 255:g}/255: fallen removed / all"
    return Ratio.counted(name, removed, everything, "passes")

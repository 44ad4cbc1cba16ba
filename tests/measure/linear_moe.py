"""Linear mixtures whose exact robust accuracy a linear program tells, and how near each attack comes to it.

With a linear router and linear experts, "routed to expert j, where class c beats y" is a polytope, so whether the
eps-box around a clip meets it is decided exactly. `python -m tests.measure.linear_moe [SEED...]` prints the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from hardroute.audit.attacks import ATTACKS, SUITES
from hardroute.models import VideoMoE

EXPERTS = 4
# A solution must hold by this much in every logit difference, so that float32 agrees that it is one.
STRICT = 1e-4


class LinearMap(nn.Module):
    """Logits linear in the pixels, zero at about mid-grey."""

    def __init__(self, outputs: int, pixels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, pixels, generator=generator))
        self.bias = nn.Parameter(torch.randn(outputs, generator=generator) / 4 - self.weight.detach().sum(1) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


@dataclass(frozen=True)
class Problem:
    """One mixture, clips that it classifies right (labels are its own answers), and a budget."""

    name: str
    model: VideoMoE
    x: Tensor
    y: Tensor
    eps: float

    @classmethod
    def draw(cls, seed: int, channels: int, classes: int, eps_255: int, clips: int) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        shape = (channels, 2, 2, 2)
        pixels = 8 * channels
        router = LinearMap(EXPERTS, pixels, generator)
        model = VideoMoE(router, [LinearMap(classes, pixels, generator) for _ in range(EXPERTS)]).eval()
        x = torch.rand(clips, *shape, generator=generator)
        with torch.no_grad():
            y = model(x).argmax(1)
        return cls(f"seed {seed}, {pixels} pixels, {classes} classes, {eps_255}/255", model, x, y, eps_255 / 255)

    def exact(self) -> np.ndarray:
        """(N,) bool: no clip in the box and in [0, 1] is classified wrong."""
        return np.array([not self._falls(i) for i in range(len(self.x))])

    def _falls(self, i: int) -> bool:
        x, y = self.x[i].flatten().double().numpy(), int(self.y[i])
        bounds = np.stack([(x - self.eps).clip(0, 1), (x + self.eps).clip(0, 1)], axis=1)
        router = self.model.router
        for j, expert in enumerate(self.model.experts):
            routed, shift = _preferred(router, j, [k for k in range(EXPERTS) if k != j])
            # A quick bound first: no pixel choice raises a difference by more than its own best one.
            if (_best(routed, shift, bounds) < STRICT).any():
                continue
            for c in range(len(expert.bias)):  # type: ignore[arg-type]
                if c == y:
                    continue
                wrong, offset = _preferred(expert, c, [y])
                if _best(wrong, offset, bounds).min() < STRICT:
                    continue
                rows, rest = np.concatenate([routed, wrong]), np.concatenate([shift, offset])
                found = linprog(np.zeros(len(x)), A_ub=-rows, b_ub=rest - STRICT, bounds=bounds, method="highs")
                if found.status == 0:
                    return True
        return False


def _preferred(network: Any, winner: int, losers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Weights and offsets of logit `winner` minus each logit of `losers`."""
    weight, bias = (t.detach().double().numpy() for t in (network.weight, network.bias))
    return weight[winner] - weight[losers], bias[winner] - bias[losers]


def _best(rows: np.ndarray, offset: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    return np.maximum(rows * bounds[:, 0], rows * bounds[:, 1]).sum(1) + offset


def holds(problem: Problem, name: str, steps: int = 10, some: np.ndarray | None = None) -> np.ndarray:
    """(N,) bool: the clip is still classified right under this attack, or is none of `some` (N,) and was not tried."""
    at = torch.arange(len(problem.x)) if some is None else torch.from_numpy(np.flatnonzero(some))
    x, y = problem.x[at], problem.y[at]
    held = np.ones(len(problem.x), dtype=bool)
    if len(at):
        x_adv = ATTACKS[name](problem.model, x, y, eps=problem.eps, steps=steps, seed=0)
        inside = ((x_adv - x).abs() <= problem.eps + 1e-6) & (x_adv >= 0) & (x_adv <= 1)
        assert bool(inside.all()), f"{name} left its box"
        with torch.no_grad():
            held[at.numpy()] = (problem.model(x_adv).argmax(1) == y).numpy()
    return held


SHAPES = ((1, 3, 14), (1, 5, 24), (3, 2, 8), (3, 4, 8), (3, 4, 12), (3, 8, 14))  # channels, classes, eps * 255
SHOWN = ("pgd-hard", "j-tlga", "route-then-attack", "route-then-attack-t")


def problems(seeds: Sequence[int], clips: int) -> Iterator[Problem]:
    for seed in seeds:
        for channels, classes, eps_255 in SHAPES:
            yield Problem.draw(seed, channels, classes, eps_255, clips)


@dataclass(frozen=True)
class Gap:
    """Robust accuracies in per cent: the exact one, under each of SHOWN alone, in the worst case over the suite."""

    exact: float
    single: dict[str, float]
    suite: float

    @classmethod
    def measure(cls, problem: Problem, suite: Sequence[str] = SUITES["full"], steps: int = 10) -> Gap:
        """Raises AssertionError if an attack leaves its box or finds what the linear program proves impossible."""
        exact = problem.exact()
        single = {name: holds(problem, name, steps) for name in SHOWN}
        worst = np.all(list(single.values()), axis=0)
        for name in (name for name in suite if name not in SHOWN):
            single[name] = holds(problem, name, steps, worst)
            worst &= single[name]
        for name, under in single.items():
            assert not (exact & ~under).any(), f"{problem.name}: {name} fools where nothing can"
        return cls(100 * exact.mean(), {name: 100 * single[name].mean() for name in SHOWN}, 100 * worst.mean())

    @property
    def missed(self) -> float:
        return self.suite - self.exact


def main(seeds: Sequence[int], clips: int = 200, steps: int = 10) -> None:
    print(f"Robust accuracy in per cent; {clips} clips a row, {steps} steps, suite of {len(SUITES['full'])} attacks")
    print(f"{'mixture of 4 linear experts':44}{'exact':>7}{'suite':>7}  " + "  ".join(SHOWN))
    missed = []
    for problem in problems(seeds, clips):
        gap = Gap.measure(problem, steps=steps)
        missed.append(gap.missed)
        alone = "  ".join(f"{gap.single[name]:{len(name)}.1f}" for name in SHOWN)
        print(f"{problem.name:44}{gap.exact:7.1f}{gap.suite:7.1f}  {alone}", flush=True)
    print(f"suite above exact: {np.mean(missed):.2f} points on the mean, {max(missed):.2f} at most, never below")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(seeds=[int(seed) for seed in sys.argv[1:]] or range(5))

"""How attacks are run: one record for each attack at each radius, and the plan of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from hardroute.audit.attacks.budget import verify
from hardroute.audit.defaults import BATCH_SIZE, EPS, STEPS
from hardroute.audit.execution.precision import seen_by_attacks
from hardroute.models import VideoMoE

AttackFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class AttackRun:
    """All that decides what an attack makes of given clips of a given model.

    Attributes:
        attack: a row of ATTACKS, or any function that is called like one. name: what it goes by.
        eps: L-inf radius in pixel range [0, 1]. steps: iterations. seed: of random starts.
        precision: what the attack sees the model in (audit.execution.precision).
    """

    name: str
    attack: AttackFunction
    eps: float = EPS
    steps: int = STEPS
    seed: int = 0
    precision: str = "fp32"

    def perturbed(self, model: VideoMoE, x: Tensor, y: Tensor) -> Tensor:
        """Clips x (n, 3, T, H, W) with labels y (n,), attacked within the radius. The model must be frozen.

        Raises BudgetError if the attack left its budget.
        """
        x_adv = x
        if self.eps:  # eps = 0 is the clean clip by definition, whatever an attack would make of it
            seen = seen_by_attacks(model, self.precision)
            x_adv = self.attack(seen, x.clone(), y.clone(), eps=self.eps, steps=self.steps, seed=self.seed)
        verify(self.name, x, x_adv, self.eps)
        return x_adv.detach()


@dataclass(frozen=True)
class Plan:
    """Every attack at every radius, cheapest first and with rising radii.

    Attributes:
        attacks: by name. eps: rising radii. steps, seed, precision: see `AttackRun`.
        thorough: every clean-correct clip meets every attack; otherwise those that have fallen are spared.
        batch_size: clips attacked at once.
    """

    attacks: Mapping[str, AttackFunction]
    eps: tuple[float, ...]
    steps: int = STEPS
    seed: int = 0
    precision: str = "fp32"
    thorough: bool = True
    batch_size: int = BATCH_SIZE

    def runs(self) -> Iterator[AttackRun]:
        """Attack by attack, each with rising radii."""
        for name, attack in self.attacks.items():
            for radius in self.eps:
                yield AttackRun(name, attack, radius, self.steps, self.seed, self.precision)

"""What an evaluation found, per clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hardroute.audit.evaluation.cost import Cost
from hardroute.audit.evaluation.measures import Measures
from hardroute.audit.evaluation.statistics import Proportion

ByEps = dict[float, np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. N clips, M experts; eps are L-inf radii in [0, 1], as given to `evaluate`.

    Attributes:
        labels: (N,) true class.
        clean_label, clean_route: (N,) class and expert chosen for the unattacked clip.
        clean: (N,) bool, classified right unattacked.
        robust: robust[eps] (N,) bool: right unattacked and under every attack run on the clip, `transferred` ones too.
        per_attack: per_attack[name][eps] (N,) bool: right unattacked and not shown to fall to this attack.
            Says something about the attack only where `tested`.
        tested: tested[name][eps] (N,) bool: the attack ran on the clip at this eps, or felled it at a smaller
            one. Thorough: all clean-correct clips. Otherwise: those that no earlier attack had felled.
        route: route[name][eps] (N,) expert chosen under this attack; the clean one where not tested.
        measures: measures[name][eps]: how far this attack moved router and model, where tested.
        costs: costs[name][eps]: passes that it took.
        adversarial: adversarial[eps] (N, T, H, W, 3) uint8: per clip the perturbed clip with the smallest
            class margin after rounding to 8 bits within the eps-box; the clean clip where none is smaller.
        adversarial_label, adversarial_route: [eps] (N,) the model's class and expert on those 8-bit clips.
        adversarial_by: adversarial_by[eps] (N,) which of `makers` made it, -1 for none.
        transferred: names of the attacks on other models, where their clips count too (audit.evaluation.transfer).
    """

    attacks: tuple[str, ...]
    eps: tuple[float, ...]
    steps: int
    seed: int
    thorough: bool
    experts: int
    labels: np.ndarray
    clean: np.ndarray
    clean_label: np.ndarray
    clean_route: np.ndarray
    robust: ByEps
    per_attack: dict[str, ByEps]
    tested: dict[str, ByEps]
    route: dict[str, ByEps]
    measures: dict[str, dict[float, Measures]]
    costs: dict[str, dict[float, Cost]]
    adversarial: ByEps
    adversarial_label: ByEps
    adversarial_route: ByEps
    adversarial_by: ByEps
    transferred: tuple[str, ...] = ()

    @property
    def makers(self) -> tuple[str, ...]:
        return self.attacks + self.transferred

    def __len__(self) -> int:
        return len(self.labels)

    def accuracy(self, name: str, eps: float) -> Proportion:
        """Under one attack: of all clips if thorough, else of the clips that it was tested on."""
        held = self.per_attack[name][eps]
        return Proportion.of(held if self.thorough else held[self.tested[name][eps]])

    def flips(self, name: str, eps: float) -> Proportion:
        """Of the clips that the attack was tested on: those it sends to another expert."""
        return Proportion.of((self.route[name][eps] != self.clean_route)[self.tested[name][eps]])

"""Who has fallen to what: the books of one evaluation, filled attack by attack."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.attacks.quantize import to_frames
from hardroute.audit.evaluation.attack_batch import Answer, AttackFunction, attack_by_name, attack_chunk, judge
from hardroute.audit.evaluation.cost import KINDS, Cost, Passes
from hardroute.audit.evaluation.measures import Measures
from hardroute.audit.execution.jobs import Job
from hardroute.audit.execution.journal import Unit
from hardroute.models import VideoMoE

ByEps = dict[float, np.ndarray]


class Tally:
    """Arrays over all N clips; `Evaluation` documents them. The model must be frozen and in eval mode."""

    def __init__(
        self,
        model: VideoMoE,
        x: Tensor,
        y: Tensor,
        radii: tuple[float, ...],
        batch_size: int,
        passes: Passes,
        precision: str = "fp32",
    ) -> None:
        self.model, self.x, self.y, self.radii, self._passes, self.precision = model, x, y, radii, passes, precision
        self.device = device_of(model)
        parts = [
            judge(model, x[i : i + batch_size].to(self.device), y[i : i + batch_size].to(self.device))
            for i in range(0, len(x), batch_size)
        ]
        self.clean_label, self.clean_route, margin, self.clean_router, self.clean_logits = (
            np.concatenate([getattr(part, name) for part in parts]) for name in Answer.__dataclass_fields__
        )
        self.labels = y.cpu().numpy()
        self.clean = self.clean_label == self.labels
        self.held: dict[str, ByEps] = {}
        self.tested: dict[str, ByEps] = {}
        self.route: dict[str, ByEps] = {}
        self.measures: dict[str, dict[float, Measures]] = {}
        self.costs: dict[str, dict[float, Cost]] = {}
        frames = to_frames(x)
        self.margin = {radius: margin.copy() for radius in radii}
        self.frames = {radius: frames.copy() for radius in radii}
        self.worst_label = {radius: self.clean_label.copy() for radius in radii}
        self.worst_route = {radius: self.clean_route.copy() for radius in radii}
        self.worst_by = {radius: np.full(len(x), -1) for radius in radii}

    def begin(self, name: str, radius: float, thorough: bool) -> np.ndarray:
        """Opens an attack's books at `radius` (call with rising radii): indices of the clips to run it on."""
        wanted = self.clean if thorough else self.robust(radius)
        smaller = [r for r in self.held.get(name, {}) if r < radius]
        # What fell at a smaller eps has fallen here: that perturbed clip lies in this box too.
        last = max(smaller) if smaller else None
        held = self.clean.copy() if last is None else self.held[name][last].copy()
        route = self.clean_route if last is None else np.where(held, self.clean_route, self.route[name][last])
        measures = Measures.none(len(held)) if last is None else self.measures[name][last].of(~held)
        self.held.setdefault(name, {})[radius] = held
        self.route.setdefault(name, {})[radius] = route.copy()
        self.measures.setdefault(name, {})[radius] = measures
        self.tested.setdefault(name, {})[radius] = wanted | (self.clean & ~held)
        self.costs.setdefault(name, {})[radius] = Cost(0, np.zeros(len(KINDS), np.int64))
        # Thorough figures are of this eps, so a clip felled at a smaller one is attacked again.
        return np.flatnonzero(wanted if thorough else wanted & held)

    def attack(self, attack: AttackFunction, name: str, radius: float, some: np.ndarray, steps: int, seed: int) -> Unit:
        """Attacks the clips `some` (indices); enters nothing."""
        x, y, smallest = self.x[some], self.y[some], self.margin[radius][some]
        return attack_chunk(self.model, attack, name, radius, x, y, smallest, steps, seed, self._passes, self.precision)

    def job(
        self, attack: AttackFunction, name: str, radius: float, some: np.ndarray, steps: int, seed: int
    ) -> Job[Unit]:
        """The same as a job; another process finds the attack by its name."""

        def arguments() -> tuple[object, ...]:
            x, y = self.x[some].cpu().numpy(), self.y[some].cpu().numpy()
            return name, radius, x, y, self.margin[radius][some], steps, seed, self.precision

        here = partial(self.attack, attack, name, radius, some, steps, seed)
        return Job(name, radius, some, here, attack_by_name, arguments)

    def enter(self, name: str, radius: float, some: np.ndarray, unit: Unit) -> None:
        """Enters what `attack` found for the clips `some`; call it in the order of the attacks and radii."""
        self.held[name][radius][some] &= unit.label == self.labels[some]
        self.route[name][radius][some] = unit.route
        self.measures[name][radius].enter(
            some, (self.clean_router[some], unit.router), (self.clean_logits[some], unit.logits), unit.distance
        )
        cost = self.costs[name][radius]
        self.costs[name][radius] = Cost(cost.clips + len(some), cost.passes + unit.passes)
        self._keep(list(self.held).index(name), radius, some, unit)

    def _keep(self, by: int, radius: float, some: np.ndarray, unit: Unit) -> None:
        """Keeps, at this and every larger eps, the 8-bit clip with the smallest margin so far."""
        place = np.cumsum(unit.better) - 1
        for larger in (r for r in self.radii if r >= radius):
            # The margin kept at a larger eps is never the greater one, so what is worse there is `better` here. Said
            # outright, as a unit may be of an earlier run, whose float32 sums differed in the last bit.
            worse = unit.better & (unit.rounded_margin < self.margin[larger][some])
            at = some[worse]
            self.margin[larger][at] = unit.rounded_margin[worse]
            self.frames[larger][at] = unit.frames[place[worse]]
            self.worst_label[larger][at] = unit.rounded_label[worse]
            self.worst_route[larger][at] = unit.rounded_route[worse]
            self.worst_by[larger][at] = by

    def robust(self, radius: float) -> np.ndarray:
        """(N,) bool: right unattacked and under every attack so far at this or a smaller eps."""
        held = self.clean.copy()
        for book in self.held.values():
            for r, stands in book.items():
                if r <= radius:
                    held &= stands
        return held

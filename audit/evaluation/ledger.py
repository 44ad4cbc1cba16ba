"""Who has fallen to what: filled attack by attack, it ends as the evaluation."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.attacks.quantize import to_frames
from hardroute.audit.evaluation.attack_batch import Answer, BatchResult, attack_batch, judge
from hardroute.audit.evaluation.attack_run import AttackRun, Plan
from hardroute.audit.evaluation.cost import KINDS, Cost, Passes
from hardroute.audit.evaluation.evaluation import ByEps, Evaluation
from hardroute.audit.evaluation.measures import Measures
from hardroute.audit.execution.jobs import Job
from hardroute.models import VideoMoE


class Ledger:
    """Arrays over all N clips; `Evaluation` documents them. The model must be frozen and in eval mode."""

    def __init__(self, model: VideoMoE, x: Tensor, y: Tensor, plan: Plan, passes: Passes) -> None:
        self._model, self._x, self._y, self._plan, self._passes = model, x, y, plan, passes
        device, size = device_of(model), plan.batch_size
        parts = [judge(model, x[i : i + size].to(device), y[i : i + size].to(device)) for i in range(0, len(x), size)]
        self._clean = Answer(*(np.concatenate([getattr(p, n) for p in parts]) for n in Answer.__dataclass_fields__))
        self._labels = y.cpu().numpy()
        self.right = self._clean.label == self._labels  # unattacked
        self._held: dict[str, ByEps] = {}
        self._tested: dict[str, ByEps] = {}
        self._route: dict[str, ByEps] = {}
        self._measures: dict[str, dict[float, Measures]] = {}
        self._costs: dict[str, dict[float, Cost]] = {}
        frames = to_frames(x)
        self._margin = {radius: self._clean.margin.copy() for radius in plan.eps}
        self._worst = {radius: frames.copy() for radius in plan.eps}
        self._worst_label = {radius: self._clean.label.copy() for radius in plan.eps}
        self._worst_route = {radius: self._clean.route.copy() for radius in plan.eps}
        self._worst_by = {radius: np.full(len(x), -1) for radius in plan.eps}

    def begin(self, run: AttackRun) -> np.ndarray:
        """Opens the pages of an attack at its radius (call with rising radii): indices of the clips to run it on."""
        name, radius, thorough = run.name, run.eps, self._plan.thorough
        wanted = self.right if thorough else self.robust(radius)
        smaller = [r for r in self._held.get(name, {}) if r < radius]
        # What fell at a smaller eps has fallen here: that perturbed clip lies in this box too.
        last = max(smaller) if smaller else None
        held = self.right.copy() if last is None else self._held[name][last].copy()
        route = self._clean.route if last is None else np.where(held, self._clean.route, self._route[name][last])
        measures = Measures.none(len(held)) if last is None else self._measures[name][last].of(~held)
        self._held.setdefault(name, {})[radius] = held
        self._route.setdefault(name, {})[radius] = route.copy()
        self._measures.setdefault(name, {})[radius] = measures
        self._tested.setdefault(name, {})[radius] = wanted | (self.right & ~held)
        self._costs.setdefault(name, {})[radius] = Cost(0, np.zeros(len(KINDS), np.int64))
        # Thorough figures are of this eps, so a clip felled at a smaller one is attacked again.
        return np.flatnonzero(wanted if thorough else wanted & held)

    def attack(self, run: AttackRun, clips: np.ndarray) -> BatchResult:
        """Attacks the clips (indices); enters nothing."""
        smallest = self._margin[run.eps][clips]
        return attack_batch(self._model, run, self._x[clips], self._y[clips], smallest, self._passes)

    def jobs(self, run: AttackRun, clips: np.ndarray) -> list[Job[BatchResult]]:
        """The same in batches, each a job."""
        size = self._plan.batch_size
        batches = [clips[start : start + size] for start in range(0, len(clips), size)]
        return [Job(run.name, run.eps, batch, partial(self.attack, run, batch)) for batch in batches]

    def enter(self, run: AttackRun, clips: np.ndarray, result: BatchResult) -> None:
        """Enters what `attack` found for the clips; call it in the order of the attacks and radii."""
        name, radius, clean = run.name, run.eps, self._clean
        self._held[name][radius][clips] &= result.label == self._labels[clips]
        self._route[name][radius][clips] = result.route
        self._measures[name][radius].enter(
            clips, (clean.router[clips], result.router), (clean.logits[clips], result.logits), result.distance
        )
        cost = self._costs[name][radius]
        self._costs[name][radius] = Cost(cost.clips + len(clips), cost.passes + result.passes)
        self._enter_worst(list(self._held).index(name), radius, clips, result)

    def _enter_worst(self, by: int, radius: float, clips: np.ndarray, result: BatchResult) -> None:
        """Keeps, at this and every larger eps, the 8-bit clip with the smallest margin so far."""
        place = np.cumsum(result.better) - 1
        for larger in (r for r in self._plan.eps if r >= radius):
            # The margin kept at a larger eps is never the greater one, so what is worse there is `better` here. Said
            # outright, as a result may be of an earlier run, whose float32 sums differed in the last bit.
            worse = result.better & (result.rounded_margin < self._margin[larger][clips])
            at = clips[worse]
            self._margin[larger][at] = result.rounded_margin[worse]
            self._worst[larger][at] = result.frames[place[worse]]
            self._worst_label[larger][at] = result.rounded_label[worse]
            self._worst_route[larger][at] = result.rounded_route[worse]
            self._worst_by[larger][at] = by

    def robust(self, radius: float) -> np.ndarray:
        """(N,) bool: right unattacked and under every attack so far at this or a smaller eps."""
        robust = self.right.copy()
        for by_eps in self._held.values():
            for r, held in by_eps.items():
                if r <= radius:
                    robust &= held
        return robust

    def evaluation(self) -> Evaluation:
        """All of it, once every run of the plan has been entered."""
        plan = self._plan
        return Evaluation(
            attacks=tuple(plan.attacks),
            eps=plan.eps,
            steps=plan.steps,
            seed=plan.seed,
            thorough=plan.thorough,
            experts=len(self._model.experts),
            labels=self._labels,
            clean=self.right,
            clean_label=self._clean.label,
            clean_route=self._clean.route,
            robust={radius: self.robust(radius) for radius in plan.eps},
            per_attack=self._held,
            tested=self._tested,
            route=self._route,
            measures=self._measures,
            costs=self._costs,
            adversarial=self._worst,
            adversarial_label=self._worst_label,
            adversarial_route=self._worst_route,
            adversarial_by=self._worst_by,
        )

"""A suite of attacks over a set of clips: what holds and what falls, per clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hardroute.audit.attacks import SUITES, Attack, find_attack
from hardroute.audit.attacks.model_state import untouched
from hardroute.audit.evaluation.attack_batch import AttackFunction
from hardroute.audit.evaluation.cost import Cost, counted
from hardroute.audit.evaluation.ledger import ByEps, Tally
from hardroute.audit.evaluation.measures import Measures
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.execution.jobs import Pool, carry_out
from hardroute.audit.execution.journal import Journal, Unit
from hardroute.models import VideoMoE
from hardroute.runtime.errors import MethodError

Progress = Callable[[int, int, str], None]


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
        transferred: names of the attacks on other models, where their clips count too (audit.evaluation.transferred).
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

    def rescaled(self, factor: float) -> Evaluation:
        """The same with the router's slopes times `factor`: of scores that were attacked at another size."""
        measures = {
            name: {eps: each.rescaled(factor) for eps, each in by_eps.items()} for name, by_eps in self.measures.items()
        }
        return replace(self, measures=measures)

    def accuracy(self, name: str, eps: float) -> Proportion:
        """Under one attack: of all clips if thorough, else of the clips that it was tested on."""
        held = self.per_attack[name][eps]
        return Proportion.of(held if self.thorough else held[self.tested[name][eps]])

    def flips(self, name: str, eps: float) -> Proportion:
        """Of the clips that the attack was tested on: those it sends to another expert."""
        return Proportion.of((self.route[name][eps] != self.clean_route)[self.tested[name][eps]])


def evaluate(
    model: VideoMoE,
    x: Tensor,
    y: Tensor,
    eps: Sequence[float] = (8 / 255,),
    suite: str | Sequence[str] | Mapping[str, AttackFunction] = "full",
    seed: int = 0,
    steps: int = 10,
    batch_size: int = 32,
    thorough: bool = True,
    progress: Progress | None = None,
    journal: Journal | None = None,
    pool: Pool | None = None,
    precision: str = "fp32",
) -> Evaluation:
    """Attacks every clip that the model gets right, and reports per clip what holds.

    Args:
        model: routed model; used in eval mode, and left as it was found, the global RNG too.
        x: (N, 3, T, H, W) float32 in [0, 1]; 8-bit clips (multiples of 1/255) replay without loss.
        y: (N,) true classes.
        eps: L-inf radii in pixel range [0, 1]. A clip felled at one eps counts as felled at every larger one.
        suite: a name in hardroute.audit.attacks.SUITES, names in ATTACKS, or attacks by name.
        seed: of the attacks' random starts.
        steps: iterations of each attack.
        batch_size: clips attacked at once; changes speed and memory, not results.
        thorough: True runs every attack at every eps on every clean-correct clip, as per-attack figures need.
            False spares clips that have already fallen the later attacks: same `robust`, less work.
        progress: called with (done, total, what); both count steps of attacks on clips, for the time left.
        journal: keeps what is found as it is found; what it holds already is not attacked again.
        pool: processes to attack in, each with this model; attacks are then those of ATTACKS.
        precision: "bf16" shows attacks the model in bfloat16, which is faster where the device has it.

    The verdict on a perturbed clip is a fresh `model(x_adv)`; attacks are not trusted with it.

    Raises:
        MethodError: unknown suite or attack. BudgetError: an attack left its budget. ValueError: x, y, eps or
        batch_size that make no sense.
    """
    attacks, radii = resolve(suite), _checked(x, y, eps, batch_size)
    if pool and isinstance(suite, Mapping):
        raise ValueError("other processes know attacks only by name: give names of ATTACKS, or no pool")
    with untouched(model), counted(model) as passes:
        tally = Tally(model, x, y, radii, batch_size, passes, precision)
        each, done = int(tally.clean.sum()), 0
        effort = {name: _effort(attack, steps, len(model.experts)) for name, attack in attacks.items()}
        total = sum(effort.values()) * len(radii) * each

        def show(name: str, radius: float) -> None:
            if progress:
                progress(done, total, f"{name} at {radius * 255:g}/255")

        for name, attack in attacks.items():
            for radius in radii:
                left = tally.begin(name, radius, thorough)
                done += effort[name] * (each - len(left))
                jobs = [
                    tally.job(attack, name, radius, left[start : start + batch_size], steps, seed)
                    for start in range(0, len(left), batch_size)
                ]
                for job, unit in carry_out(jobs, Unit, journal, pool, lambda job: show(job.name, job.eps)):
                    tally.enter(name, radius, job.some, unit)
                    done += effort[name] * len(job.some)
        if progress:
            progress(total, total, "attacks done")
    return Evaluation(
        attacks=tuple(attacks),
        eps=radii,
        steps=steps,
        seed=seed,
        thorough=thorough,
        experts=len(model.experts),
        labels=tally.labels,
        clean=tally.clean,
        clean_label=tally.clean_label,
        clean_route=tally.clean_route,
        robust={radius: tally.robust(radius) for radius in radii},
        per_attack=tally.held,
        tested=tally.tested,
        route=tally.route,
        measures=tally.measures,
        costs=tally.costs,
        adversarial=tally.frames,
        adversarial_label=tally.worst_label,
        adversarial_route=tally.worst_route,
        adversarial_by=tally.worst_by,
    )


def _effort(attack: AttackFunction, steps: int, experts: int) -> int:
    """Steps on one clip, as a rough guide to the time left; as many as asked for where the attack is none of ours."""
    if not isinstance(attack, Attack):
        return steps
    row = attack.describe(steps, experts)
    return row["steps"] * row["runs"] * max(1, row["wrong_classes"])


def resolve(suite: str | Sequence[str] | Mapping[str, AttackFunction]) -> dict[str, AttackFunction]:
    """Attacks by name, in the suite's order. Raises MethodError, listing the known ones."""
    if isinstance(suite, Mapping):
        return dict(suite)
    if isinstance(suite, str):
        if suite not in SUITES:
            raise MethodError(f"unknown suite '{suite}': choose one of {', '.join(SUITES)}")
        suite = SUITES[suite]
    return {name: find_attack(name) for name in suite}


def _checked(x: Tensor, y: Tensor, eps: Sequence[float], batch_size: int) -> tuple[float, ...]:
    if x.ndim != 5 or x.dtype != torch.float32 or not len(x):
        raise ValueError(f"x must be float32 (N, 3, T, H, W) with N >= 1, not {x.dtype} {tuple(x.shape)}")
    if y.shape != x.shape[:1] or y.is_floating_point():
        raise ValueError(f"y must hold one class index per clip, not {y.dtype} {tuple(y.shape)}")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError("x must lie in [0, 1]: normalisation belongs to the model")
    radii = tuple(sorted(set(eps)))
    if not radii or not 0 <= radii[0] <= radii[-1] <= 1:
        raise ValueError(f"eps must be L-inf radii in [0, 1], as 8 / 255, not {tuple(eps)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    return radii

"""Transfer: clips made to fool one model, shown to others.

Those that were made on other models count in the audited one's headline too, and should not beat the attacks on itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from hardroute.audit.attacks import find_attack
from hardroute.audit.attacks.model_state import device_of, untouched
from hardroute.audit.attacks.quantize import nearest_inside
from hardroute.audit.defaults import BATCH_SIZE, EPS, STEPS
from hardroute.audit.evaluation.attack_batch import Answer, judge
from hardroute.audit.evaluation.attack_run import AttackRun
from hardroute.audit.evaluation.cost import counted
from hardroute.audit.evaluation.evaluation import ByEps, Evaluation
from hardroute.audit.evaluation.statistics import Proportion, two_sided
from hardroute.audit.execution.jobs import Job, carry_out
from hardroute.audit.execution.journal import Journal
from hardroute.models import VideoMoE
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.clips import to_network
from hardroute.runtime.errors import MethodError

AUDITED: Final = "this model"  # never a source's name, which has no space
# Those of the paper's Tab. 3, and the attack that its J-TLGA builds on.
TRANSFERRED: Final = ("fgsm", "pgd", "tt", "tla-m", "j-tlga")


@dataclass(frozen=True)
class Shown:
    """n clips made on one model, as T models see them.

    Attributes:
        label: (T, n) class that each model gives; -1: no answer.
        rounded_label, rounded_route: (n,) class and expert of the first model on the clips in 8 bits.
        fooled: (n,) bool: the first model stood until then, and falls. frames: (fooled, T, H, W, 3) uint8 of these.
        passes: (4,) clips that went through any of the models: hardroute.audit.evaluation.cost.KINDS.
    """

    label: np.ndarray
    rounded_label: np.ndarray
    rounded_route: np.ndarray
    fooled: np.ndarray
    frames: np.ndarray
    passes: np.ndarray


@dataclass(frozen=True)
class Transfer:
    """Which of N clips hold: every source's attacks against every target, at one eps.

    Attributes:
        attacks, sources, targets: names, in the order of rows and columns.
        clean: clean[target] (N,) bool: right unattacked.
        held: held[attack][source][target] (N,) bool: right unattacked and under the clip made on the source. Where
            source and target are one model, this is its white-box result.
        shown: (attack, source, clips (indices), what became of them).
    """

    eps: float
    attacks: tuple[str, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    clean: dict[str, np.ndarray]
    held: dict[str, dict[str, dict[str, np.ndarray]]]
    shown: tuple[tuple[str, str, np.ndarray, Shown], ...]

    def accuracy(self, attack: str, source: str, target: str) -> Proportion:
        """Robust accuracy of `target` under clips made on `source`, over all clips."""
        return Proportion.of(self.held[attack][source][target])

    @property
    def passes(self) -> np.ndarray:
        """(4,) clips that went through any of the models: hardroute.audit.evaluation.cost.KINDS."""
        return np.sum([found.passes for *_, found in self.shown], axis=0)

    def white_box(self, model: str) -> np.ndarray:
        """(N,) bool: right unattacked, and under every attack on the model itself."""
        return np.logical_and.reduce([self.held[attack][model][model] for attack in self.attacks])


def transfer(
    models: Mapping[str, VideoMoE],
    x: Tensor,
    y: Tensor,
    attacks: Sequence[str] = TRANSFERRED,
    eps: float = EPS,
    steps: int = STEPS,
    seed: int = 0,
    *,
    sources: Sequence[str] | None = None,
    standing: np.ndarray | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int, str], None] | None = None,
    journal: Journal | None = None,
    called: Mapping[str, str] | None = None,
) -> Transfer:
    """Attacks each source once by each attack on all clips, and shows the result to every model.

    Args:
        models: by name; left as they were found. sources: those to attack; all of them if left out.
        x: (N, 3, T, H, W) float32 in [0, 1]. y: (N,) true classes.
        attacks: names in audit.attacks.ATTACKS. They stop at what fools the source: more steps may transfer better.
        eps: L-inf radius in raw pixels.
        standing: (N,) bool: clips whose 8-bit version is kept if the first model falls to it.
        progress: called with (done, total, what), in clips times attacks times sources.
        journal: see `evaluate`. called: what tells the models apart from others of the same names, for the journal.

    Raises:
        MethodError: no model, or an unknown attack or source. BudgetError: an attack left its budget.

    Example:
        >>> transfer({"at-m": plain, "j-tlat": hardened}, x, y).accuracy("j-tlga", "at-m", "j-tlat")
    """
    sources = tuple(models if sources is None else sources)
    if not models or not sources or set(sources) - set(models):
        raise MethodError("transfer needs at least one source and one target; give models by name")
    runs = [AttackRun(name, find_attack(name), eps, steps, seed) for name in attacks]
    batches = [part.numpy() for part in torch.arange(len(x)).split(batch_size)]
    labels, stood = y.cpu().numpy(), np.zeros(len(x), bool) if standing is None else standing
    clean = {
        name: np.concatenate([_judged(model, x[clips], y[clips]).label for clips in batches]) == labels
        for name, model in models.items()
    }
    held = {a: {s: {t: clean[t].copy() for t in models} for s in sources} for a in attacks}
    told, shown = called or {}, []
    done, total = 0, len(attacks) * len(sources) * len(x)
    for run in runs:
        for source in sources:
            name = f"{run.name} from {told.get(source, source)} to {' '.join(told.get(t, t) for t in models)}"
            jobs = [
                Job(name, eps, clips, partial(show, models, source, run, x[clips], y[clips], stood[clips]))
                for clips in batches
            ]
            for job, found in carry_out(jobs, Shown, journal):
                if progress:
                    progress(done, total, f"{run.name} from {source}")
                for target, label in zip(models, found.label, strict=True):
                    held[run.name][source][target][job.clips] &= label == labels[job.clips]
                shown.append((run.name, source, job.clips, found))
                done += len(job.clips)
    if progress:
        progress(total, total, "transfer done")
    return Transfer(eps, tuple(attacks), sources, tuple(models), clean, held, tuple(shown))


def show(
    models: Mapping[str, VideoMoE], source: str, run: AttackRun, x: Tensor, y: Tensor, standing: np.ndarray
) -> Shown:
    """Attacks models[source] on n clips, and asks every model for its class. `standing` (n,): see `transfer`."""
    first, model = next(iter(models.values())), models[source]
    clips, labels = x.to(device_of(model)), y.to(device_of(model))
    with ExitStack() as counters:
        passes = [counters.enter_context(counted(each)) for each in models.values()]
        with untouched(model):
            x_adv = run.perturbed(model, clips, labels)
        label = np.stack([_judged(target, x_adv, labels).label for target in models.values()])
        frames = nearest_inside(clips, x_adv, run.eps)
        rounded = _judged(first, torch.from_numpy(to_network(frames)), labels)
    right = labels.cpu().numpy()
    fooled = standing & ((label[0] != right) | (rounded.label != right))
    total = np.sum([each.total for each in passes], axis=0)
    return Shown(label, rounded.label, rounded.route, fooled, frames[fooled], total)


def _judged(model: VideoMoE, x: Tensor, y: Tensor) -> Answer:
    with untouched(model):
        return judge(model, x.to(device_of(model)), y.to(device_of(model)))


@dataclass(frozen=True)
class Transferred:
    """What clips made on other bundles do to the audited one.

    Attributes:
        matrix: sources by targets; the first of both is the audited model, AUDITED.
        only: (N,) bool: stands under the suite and the matrix's attacks on the model itself, and falls to another's.
        bundles: the others, by name. undefended: those that were trained without a defence.
    """

    matrix: Transfer
    only: np.ndarray
    bundles: Mapping[str, Bundle]
    undefended: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For report.json: accuracies of all clips, by attack, source and target."""
        matrix = self.matrix
        own = matrix.white_box(AUDITED)
        return {
            "eps_255": round(matrix.eps * 255, 6),
            "models": {
                name: {"digest": self.bundles[name].digest, "undefended": name in self.undefended}
                for name in self.bundles
            },
            "clean": {name: Proportion.of(right).as_dict() for name, right in matrix.clean.items()},
            "accuracy": {
                source: {
                    attack: {target: matrix.accuracy(attack, source, target).as_dict() for target in matrix.targets}
                    for attack in matrix.attacks
                }
                for source in matrix.sources
            },
            "only_transferred": Proportion.of(self.only).as_dict(),
            "white_box": {name: Proportion.of(matrix.white_box(name)).as_dict() for name in matrix.sources},
            "paired": {name: _paired(own, matrix.white_box(name)) for name in self.bundles},
        }


def counted_in(evaluation: Evaluation, matrix: Transfer) -> tuple[Evaluation, np.ndarray]:
    """The evaluation with what fell to transferred clips fallen; (N,) bool: what fell to nothing else."""
    standing = evaluation.robust[matrix.eps]
    fell_own, fell = (
        np.logical_or.reduce([~matrix.held[attack][source][AUDITED] for attack in matrix.attacks for source in sources])
        for sources in ((AUDITED,), matrix.sources)
    )
    larger = [eps for eps in evaluation.eps if eps >= matrix.eps]
    makers = [_name(attack, source) for attack, source, _, _ in matrix.shown]
    joined = replace(
        evaluation,
        transferred=tuple(dict.fromkeys(makers)),
        robust={eps: held & ~fell if eps in larger else held for eps, held in evaluation.robust.items()},
        adversarial=_copied(evaluation.adversarial),
        adversarial_label=_copied(evaluation.adversarial_label),
        adversarial_route=_copied(evaluation.adversarial_route),
        adversarial_by=_copied(evaluation.adversarial_by),
    )
    for maker, (_, _, clips, found) in zip(makers, matrix.shown, strict=True):
        fooled, label, route = clips[found.fooled], found.rounded_label[found.fooled], found.rounded_route[found.fooled]
        for eps in larger:
            # The first that fools in 8 bits stays.
            right = joined.adversarial_label[eps][fooled] == evaluation.labels[fooled]
            new = right & (label != evaluation.labels[fooled])
            at = fooled[new]
            joined.adversarial[eps][at], joined.adversarial_label[eps][at] = found.frames[new], label[new]
            joined.adversarial_route[eps][at] = route[new]
            joined.adversarial_by[eps][at] = len(evaluation.attacks) + joined.transferred.index(maker)
    return joined, standing & ~fell_own & fell


def felled_by(matrix: Transfer, clip: int) -> list[str]:
    """Names of the transferred attacks that fell the audited model on a clip that it gets right."""
    return [
        _name(attack, source)
        for source in matrix.sources
        for attack in matrix.attacks
        if not matrix.held[attack][source][AUDITED][clip]
    ]


def _copied(by_eps: ByEps) -> ByEps:
    return {eps: values.copy() for eps, values in by_eps.items()}


def _name(attack: str, source: str) -> str:
    return attack if source == AUDITED else f"{attack} from {source}"


def _paired(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    only = int((first & ~second).sum()), int((second & ~first).sum())
    return {"this_only": only[0], "other_only": only[1], "p": two_sided(*only)}

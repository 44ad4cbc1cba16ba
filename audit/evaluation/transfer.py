"""Transfer: clips made to fool one model, shown to others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from hardroute.audit.attacks import find_attack
from hardroute.audit.attacks.budget import verify
from hardroute.audit.attacks.model_state import device_of, untouched
from hardroute.audit.attacks.quantize import nearest_inside
from hardroute.audit.evaluation.attack_batch import Answer, judge
from hardroute.audit.evaluation.cost import counted
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.execution.jobs import Job, Pool, carry_out
from hardroute.audit.execution.journal import Journal
from hardroute.models import VideoMoE
from hardroute.runtime.clips import to_network
from hardroute.runtime.errors import MethodError

# Those of the paper's Tab. 3, and the attack that its J-TLGA builds on.
TRANSFERRED = ("fgsm", "pgd", "tt", "tla-m", "j-tlga")


@dataclass(frozen=True)
class Shown:
    """n clips made on one model, as T models see them.

    Attributes:
        label: (T, n) class that each model gives; -1: no answer.
        rounded_label, rounded_route: (n,) class and expert of the first model on the clips in 8 bits.
        kept: (n,) bool: the first model was asked about and falls. frames: (kept, T, H, W, 3) uint8 of these.
        passes: (4,) clips that went through any of the models: hardroute.audit.evaluation.cost.KINDS.
    """

    label: np.ndarray
    rounded_label: np.ndarray
    rounded_route: np.ndarray
    kept: np.ndarray
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
        shown: (attack, source, clips (indices), what became of them), for `hardroute.audit.evaluation.transferred`.
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
    eps: float = 8 / 255,
    steps: int = 10,
    seed: int = 0,
    *,
    sources: Sequence[str] | None = None,
    standing: np.ndarray | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int, str], None] | None = None,
    journal: Journal | None = None,
    pool: Pool | None = None,
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
        journal, pool: see `audit.evaluate`; the pool holds these models. called: what tells the models apart from
            others of the same names, for the journal.

    Raises:
        MethodError: no model, or an unknown attack or source. BudgetError: an attack left its budget.

    Example:
        >>> transfer({"at-m": plain, "j-tlat": hardened}, x, y).accuracy("j-tlga", "at-m", "j-tlat")
    """
    sources = tuple(models if sources is None else sources)
    if not models or not sources or set(sources) - set(models):
        raise MethodError("transfer needs at least one source and one target; give models by name")
    for attack in attacks:
        find_attack(attack)
    parts = [part.numpy() for part in torch.arange(len(x)).split(batch_size)]
    labels, wanted = y.cpu().numpy(), np.zeros(len(x), bool) if standing is None else standing
    clean = {
        name: np.concatenate([_judged(model, x[at], y[at]).label for at in parts]) == labels
        for name, model in models.items()
    }
    held = {a: {s: {t: clean[t].copy() for t in models} for s in sources} for a in attacks}
    told, shown = called or {}, []
    done, total = 0, len(attacks) * len(sources) * len(x)
    for attack in attacks:
        for source in sources:
            name = f"{attack} from {told.get(source, source)} to {' '.join(told.get(t, t) for t in models)}"
            jobs = []
            for at in parts:
                what = (source, attack, x[at].cpu().numpy(), labels[at], wanted[at], eps, steps, seed)
                jobs.append(Job(name, eps, at, partial(show, models, *what), show, partial(tuple, what)))
            for job, found in carry_out(jobs, Shown, journal, pool):
                if progress:
                    progress(done, total, f"{attack} from {source}")
                for target, label in zip(models, found.label, strict=True):
                    held[attack][source][target][job.some] &= label == labels[job.some]
                shown.append((attack, source, job.some, found))
                done += len(job.some)
    if progress:
        progress(total, total, "transfer done")
    return Transfer(eps, tuple(attacks), sources, tuple(models), clean, held, tuple(shown))


def show(
    models: Mapping[str, VideoMoE],
    source: str,
    attack: str,
    x: np.ndarray,
    y: np.ndarray,
    wanted: np.ndarray,
    eps: float,
    steps: int,
    seed: int,
) -> Shown:
    """Attacks models[source] on n clips, and asks every model for its class. `wanted` (n,): whose frames to keep."""
    first, model = next(iter(models.values())), models[source]
    clips, labels = torch.from_numpy(x).to(device_of(model)), torch.from_numpy(y).to(device_of(model))
    with ExitStack() as counters:
        passes = [counters.enter_context(counted(each)) for each in models.values()]
        with untouched(model):
            x_adv = find_attack(attack)(model, clips.clone(), labels, eps=eps, steps=steps, seed=seed).detach()
        verify(attack, clips, x_adv, eps)
        label = np.stack([_judged(target, x_adv, labels).label for target in models.values()])
        frames = nearest_inside(clips, x_adv, eps)
        rounded = _judged(first, torch.from_numpy(to_network(frames)), labels)
    kept = wanted & ((label[0] != y) | (rounded.label != y))
    total = np.sum([each.total for each in passes], axis=0)
    return Shown(label, rounded.label, rounded.route, kept, frames[kept], total)


def _judged(model: VideoMoE, x: Tensor, y: Tensor) -> Answer:
    with untouched(model):
        return judge(model, x.to(device_of(model)), y.to(device_of(model)))

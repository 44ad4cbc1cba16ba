"""A suite of attacks over a set of clips: what holds and what falls, per clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hardroute.audit.attacks import SUITES, Attack, find_attack
from hardroute.audit.attacks.model_state import device_of, untouched
from hardroute.audit.attacks.validation import validate_clips
from hardroute.audit.defaults import BATCH_SIZE, EPS, STEPS
from hardroute.audit.evaluation.attack_batch import BatchResult
from hardroute.audit.evaluation.attack_run import AttackFunction, Plan
from hardroute.audit.evaluation.cost import counted
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.ledger import Ledger
from hardroute.audit.execution.jobs import carry_out
from hardroute.audit.execution.journal import Journal
from hardroute.models import VideoMoE
from hardroute.runtime.errors import MethodError

Progress = Callable[[int, int, str], None]


def evaluate(
    model: VideoMoE,
    x: Tensor,
    y: Tensor,
    eps: Sequence[float] = (EPS,),
    suite: str | Sequence[str] | Mapping[str, AttackFunction] = "full",
    seed: int = 0,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    thorough: bool = True,
    progress: Progress | None = None,
    journal: Journal | None = None,
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
        journal: keeps what is found as it is found; what it holds already is not attacked again. Processes that call
            this with the same arguments and a journal that they share do each batch once, and all return the same.
        precision: "bf16" shows attacks the model in bfloat16, which is faster where the device has it.

    The verdict on a perturbed clip is a fresh `model(x_adv)`; attacks are not trusted with it.

    Raises:
        MethodError: unknown suite or attack; clips, labels, eps or batch_size that make no sense
            (`audit.attacks.validation`). BudgetError: an attack left its budget.
    """
    attacks, radii = resolve(suite), _checked(x, y, eps, batch_size)
    y = y.long()
    plan = Plan(attacks, radii, steps, seed, precision, thorough, batch_size)
    # Half precision is asked for by `precision`; a caller's autocast must not decide what a model answers.
    as_it_is = torch.autocast(device_of(model).type, enabled=False)
    with untouched(model), as_it_is, counted(model) as passes:
        ledger = Ledger(model, x, y, plan, passes)
        each, done = int(ledger.right.sum()), 0
        effort = {name: _effort(attack, steps, len(model.experts)) for name, attack in attacks.items()}
        total = sum(effort.values()) * len(radii) * each

        def show(name: str, radius: float) -> None:
            if progress:
                progress(done, total, f"{name} at {radius * 255:g}/255")

        for run in plan.runs():
            left = ledger.begin(run)
            done += effort[run.name] * (each - len(left))
            jobs = ledger.jobs(run, left)
            for job, result in carry_out(jobs, BatchResult, journal, lambda job: show(job.name, job.eps)):
                ledger.enter(run, job.clips, result)
                done += effort[run.name] * len(job.clips)
        if progress:
            progress(total, total, "attacks done")
        return ledger.evaluation()


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
    validate_clips(x, y)
    for radius in eps:
        validate_clips(x[:1], eps=radius)
    radii = tuple(sorted(set(eps)))
    if not radii:
        raise MethodError("eps: give at least one L-inf radius in raw pixels of [0, 1], such as (8 / 255,)")
    if batch_size < 1:
        raise MethodError(f"batch_size must be at least 1, not {batch_size}")
    return radii

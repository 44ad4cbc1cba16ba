"""Accuracy, unattacked and in the worst case: what twin and deployed runtime both get right."""

from __future__ import annotations

from dataclasses import dataclass

from hardroute.audit.checks.check import Check, Judgement, at_least
from hardroute.audit.checks.context import Context
from hardroute.audit.evaluation.replay import worst_case
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.policy import Policy


@dataclass(frozen=True)
class Right:
    """Clips classified right. `under`: what was done to them, as a sentence begins."""

    under: str
    found: Proportion


def clean(context: Context) -> Right:
    """Without an attack."""
    return Right("Unattacked", Proportion.of(context.evaluation.clean & context.agreement.clean_right))


def robust(context: Context) -> Right:
    """Under every attack of the suite, at the radius that decides and below."""
    attacks, gate = len(set(context.evaluation.makers)), context.policy.attacks.gate_eps
    held = worst_case(context.evaluation, context.agreement, context.eps)
    return Right(f"Under all {attacks} attacks at eps {gate}/255", Proportion.of(held))


def describe(right: Right, judged: Judgement) -> str:
    found = right.found
    return (
        f"{right.under}, {found.successes} of {found.n} clips are classified right: {found}. "
        f"The lower end, {_percent(found.low)}, is held against {_percent(judged.bound)}."
    )


def judge_clean(right: Right, policy: Policy) -> Judgement:
    return at_least(right.found.low, policy.thresholds.clean_accuracy)


def judge_robust(right: Right, policy: Policy) -> Judgement:
    return at_least(right.found.low, policy.thresholds.robust_accuracy)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


CLEAN = Check("clean accuracy", clean, judge_clean, describe, headline=True)
ROBUST = Check("robust accuracy", robust, judge_robust, describe, headline=True)

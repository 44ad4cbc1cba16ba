"""What is deployed must be what was audited."""

from __future__ import annotations

from hardroute.audit.checks.check import Check, Judgement, at_least
from hardroute.audit.checks.context import Context
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.policy import Policy


def measure(context: Context) -> Proportion:
    """Clips with the same class and expert in both, in the worst of the sets replayed."""
    return context.agreement.lowest()


def judge(found: Proportion, policy: Policy) -> Judgement:
    return at_least(found.share, policy.thresholds.min_agreement)


def describe(found: Proportion, judged: Judgement) -> str:
    return (
        "Deployed runtime and audited twin give the same class and expert on "
        f"{found.successes} of {found.n} clips, in the worst of the sets replayed."
    )


DEPLOYED = Check("deployed = audited", measure, judge, describe)

"""The decision: every check of a policy, with a sentence that a person understands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hardroute.audit.checks.flags import Check, black_box, flags, transferred
from hardroute.audit.checks.sanity import Sanity
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.replay import Agreement, worst_case
from hardroute.audit.evaluation.statistics import Proportion, load_entropy, load_of
from hardroute.audit.evaluation.transfer import Transferred
from hardroute.audit.policy import Policy


@dataclass(frozen=True)
class Verdict:
    """Passed if every check did."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def decide(
    evaluation: Evaluation, agreement: Agreement, sanity: Sanity, policy: Policy, foreign: Transferred | None = None
) -> Verdict:
    """Holds what was found against the policy; accuracies count with the lower end of their interval."""
    bounds, gate = policy.thresholds, policy.attacks.gate_eps
    clean = Proportion.of(evaluation.clean & agreement.clean_right)
    robust = Proportion.of(worst_case(evaluation, agreement, gate / 255))
    load = load_of(evaluation.clean_route, evaluation.experts)
    entropy, agreeing = load_entropy(load), agreement.lowest()
    return Verdict(
        (
            _accuracy("clean accuracy", "Unattacked", clean, bounds.clean_accuracy),
            _accuracy(
                "robust accuracy",
                f"Under all {len(set(evaluation.makers))} attacks at eps {gate}/255",
                robust,
                bounds.robust_accuracy,
            ),
            Check(
                "router load",
                entropy,
                "at least",
                bounds.min_load_entropy,
                f"The {evaluation.experts} experts get {_shares(load)} of the unattacked clips: "
                f"an entropy of {entropy:.2f} of the greatest possible.",
            ),
            Check(
                "deployed = audited",
                agreeing.share,
                "at least",
                bounds.min_agreement,
                "Deployed runtime and audited twin give the same class and expert on "
                f"{agreeing.successes} of {agreeing.n} clips, in the worst of the sets replayed.",
            ),
            *black_box(evaluation, gate / 255),
            *(transferred(foreign, sanity.chance) if foreign else ()),
            *flags(sanity, bounds.max_dead_gradients, bounds.min_second_choice),
        )
    )


def _accuracy(name: str, under: str, found: Proportion, bound: float) -> Check:
    sentence = (
        f"{under}, {found.successes} of {found.n} clips are classified right: {found}. "
        f"The lower end, {_percent(found.low)}, is held against {_percent(bound)}."
    )
    return Check(name, found.low, "at least", bound, sentence)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _shares(load: np.ndarray) -> str:
    return ", ".join(f"{100 * share:.0f} %" for share in load)

"""The decision: every check of a policy, with a sentence that a person understands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from audit.agreement import Agreement, worst_case
from audit.evaluation import Evaluation
from audit.policy import Policy
from audit.sanity import FAR, Sanity
from audit.statistics import Proportion, load_entropy, load_of

# float32 sums in another order differ by about 1e-6; randomness that hinders an attack moves logits far more.
MAX_REPEAT_DIFFERENCE = 1e-4
MAX_BATCH_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Check:
    """One condition. `measured` must be `wants` (at least, or at most) `bound`."""

    name: str
    measured: float
    wants: Literal["at least", "at most"]
    bound: float
    sentence: str

    @property
    def passed(self) -> bool:
        # Written so that NaN fails either way.
        return self.measured >= self.bound if self.wants == "at least" else self.measured <= self.bound


@dataclass(frozen=True)
class Verdict:
    """Passed if every check did."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def decide(evaluation: Evaluation, agreement: Agreement, sanity: Sanity, policy: Policy) -> Verdict:
    """Holds what was found against the policy; accuracies count with the lower end of their interval."""
    bounds, gate = policy.thresholds, policy.attacks.gate_eps
    clean = Proportion.of(evaluation.clean & agreement.clean_right)
    robust = Proportion.of(worst_case(evaluation, agreement, gate / 255))
    load = load_of(evaluation.clean_route, evaluation.experts)
    entropy, agreeing = load_entropy(load), agreement.lowest()
    training = sanity.training
    return Verdict(
        (
            _accuracy("clean accuracy", "Unattacked", clean, bounds.clean_accuracy),
            _accuracy(
                "robust accuracy",
                f"Under all {len(evaluation.attacks)} attacks at eps {gate}/255",
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
            Check(
                "usable gradients",
                sanity.dead_gradients.share,
                "at most",
                bounds.max_dead_gradients,
                f"{sanity.dead_gradients.successes} of {sanity.dead_gradients.n} clips give an attack "
                "no gradient to follow (all zero, or not finite).",
            ),
            Check(
                "attacks bite",
                sanity.far.low,
                "at most",
                sanity.chance,
                f"At eps {FAR:g}, where no classifier can do better than chance ({_percent(sanity.chance)}), "
                f"{sanity.far.successes} of {sanity.far.n} clips still hold: {sanity.far}.",
            ),
            Check(
                "repeatable",
                sanity.repeat_difference,
                "at most",
                MAX_REPEAT_DIFFERENCE,
                f"Asked twice, the model differs by {sanity.repeat_difference:.1e} of its largest logit.",
            ),
            Check(
                "clips independent",
                sanity.batch_difference,
                "at most",
                MAX_BATCH_DIFFERENCE,
                f"Alone or in a batch, a clip differs by {sanity.batch_difference:.1e} of the largest logit.",
            ),
            Check(
                "ready to serve",
                len(training),
                "at most",
                0,
                f"Modules left in training mode: {', '.join(training[:3]) or 'none'}"
                + (f" and {len(training) - 3} more." if len(training) > 3 else "."),
            ),
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

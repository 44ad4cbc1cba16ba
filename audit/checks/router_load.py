"""A router that sends every clip to one expert is no router."""

from __future__ import annotations

import numpy as np

from hardroute.audit.checks.check import Check, Judgement, at_least
from hardroute.audit.checks.context import Context
from hardroute.audit.evaluation.statistics import load_entropy, load_of
from hardroute.audit.policy import Policy


def measure(context: Context) -> np.ndarray:
    """(M,) share of the unattacked clips that each expert gets."""
    return load_of(context.evaluation.clean_route, context.evaluation.experts)


def judge(load: np.ndarray, policy: Policy) -> Judgement:
    return at_least(load_entropy(load), policy.thresholds.min_load_entropy)


def describe(load: np.ndarray, judged: Judgement) -> str:
    shares = ", ".join(f"{100 * share:.0f} %" for share in load)
    return (
        f"The {len(load)} experts get {shares} of the unattacked clips: "
        f"an entropy of {judged.measured:.2f} of the greatest possible."
    )


ROUTER_LOAD = Check("router load", measure, judge, describe)

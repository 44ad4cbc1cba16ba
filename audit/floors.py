"""Floors: what an audit must at least have looked at, asked and run before anything is certified by it.

A policy below them may be audited under, and passed; its report says which floor kept the certificate away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hardroute.audit.attacks import ATTACKS, SUITES
from hardroute.audit.policy import Policy

# With 100 clips the 95 % Wilson interval is at most 19.3 points wide, whatever the share: a figure that is certified
# is known to better than ten points either way.
MIN_CLIPS: Final = 100
MIN_STEPS: Final = 10  # of the attacks that take as many as a policy says: PGD-10 is the least that the paper reports
MIN_AGREEMENT: Final = 0.9
MAX_DEAD_GRADIENTS: Final = 0.1
SUITE: Final = "standard"


@dataclass(frozen=True)
class Basis:
    """What a certificate would rest on.

    Attributes:
        classes: of the bundle. distinct: clips that are no copies of each other; None while they have not been read.
        audited: clips that the figures are of; None as above.
        limit: clips asked for where that was fewer than the policy's. precision: that attacks saw the model in.
    """

    policy: Policy
    classes: int
    distinct: int | None = None
    audited: int | None = None
    limit: int | None = None
    precision: str = "fp32"

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / self.classes


@dataclass(frozen=True)
class Floor:
    """One row: `short` says in a sentence what is missing, and None where nothing is."""

    name: str
    short: Callable[[Basis], str | None]


def shortfalls(basis: Basis) -> tuple[str, ...]:
    """A sentence for each floor that is not reached; none: a passed audit may be certified."""
    return tuple(said for floor in FLOORS if (said := floor.short(basis)) is not None)


def _in_full(basis: Basis) -> str | None:
    if basis.limit is None:
        return None
    return f"at most {basis.limit} clips were asked for, which are fewer than the policy asks for"


def _as_served(basis: Basis) -> str | None:
    return (
        None
        if basis.precision == "fp32"
        else f"attacks saw the model in {basis.precision}, not in fp32 as it is served"
    )


def _clips(basis: Basis) -> str | None:
    asked = basis.policy.data.clips
    if asked < MIN_CLIPS:
        return f"the policy asks for {asked} clips; at least {MIN_CLIPS} are needed"
    if basis.distinct is not None and basis.distinct < MIN_CLIPS:
        return f"{basis.distinct} distinct clips were audited; at least {MIN_CLIPS} are needed"
    return None


def _once_each(basis: Basis) -> str | None:
    if basis.distinct is None or basis.audited is None or basis.distinct == basis.audited:
        return None
    return f"{basis.audited - basis.distinct} of {basis.audited} clips are copies of others, and were counted again"


def _radius(basis: Basis) -> str | None:
    rules = basis.policy.attacks
    if rules.gate_eps > 0 and rules.gate_eps in rules.eps:
        return None
    return f"the policy decides at eps {rules.gate_eps}/255; it must be above 0 and one that is attacked at"


def _attacks(basis: Basis) -> str | None:
    rules = basis.policy.attacks
    run = [ATTACKS[name] for name in SUITES[rules.suite]]
    left_out = [name for name in SUITES[SUITE] if ATTACKS[name] not in run]
    if not left_out:
        return None
    return f"suite '{rules.suite}' leaves out {', '.join(left_out)}; those of suite '{SUITE}' are the least"


def _steps(basis: Basis) -> str | None:
    steps = basis.policy.attacks.steps
    return None if steps >= MIN_STEPS else f"attacks take {steps} steps; at least {MIN_STEPS} are needed"


def _above_chance(which: str, threshold: Callable[[Policy], float]) -> Callable[[Basis], str | None]:
    def short(basis: Basis) -> str | None:
        asked = threshold(basis.policy)
        if asked > basis.chance:
            return None
        return (
            f"the policy asks for {which} of {asked:g}; it must be above chance, {basis.chance:.3g} with "
            f"{basis.classes} classes"
        )

    return short


def _agreement(basis: Basis) -> str | None:
    asked = basis.policy.thresholds.min_agreement
    if asked >= MIN_AGREEMENT:
        return None
    return f"the policy asks for min_agreement of {asked:g}; at least {MIN_AGREEMENT:g} is needed"


def _gradients(basis: Basis) -> str | None:
    allowed = basis.policy.thresholds.max_dead_gradients
    if allowed <= MAX_DEAD_GRADIENTS:
        return None
    return f"the policy allows max_dead_gradients of {allowed:g}; at most {MAX_DEAD_GRADIENTS:g} may be"


FLOORS: Final = (
    Floor("in full", _in_full),
    Floor("as served", _as_served),
    Floor("clips", _clips),
    Floor("once each", _once_each),
    Floor("radius", _radius),
    Floor("attacks", _attacks),
    Floor("steps", _steps),
    Floor("clean accuracy", _above_chance("clean_accuracy", lambda policy: policy.thresholds.clean_accuracy)),
    Floor("robust accuracy", _above_chance("robust_accuracy", lambda policy: policy.thresholds.robust_accuracy)),
    Floor("agreement", _agreement),
    Floor("gradients", _gradients),
)

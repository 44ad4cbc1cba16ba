"""An attack with all the budget there is fells everything, and one with none fells nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from hardroute.audit.attacks import find_attack
from hardroute.audit.checks.check import Check, Judgement, at_least, at_most
from hardroute.audit.checks.context import Context
from hardroute.audit.checks.strength import PROBE
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.policy import Policy

# Half of the pixel range: any clip can be made plain grey, so nothing can be told apart.
FAR = 0.5


@dataclass(frozen=True)
class Far:
    """`held`: clips right at FAR; above `chance`, the attack is being hindered."""

    held: Proportion
    chance: float


def far(context: Context) -> Far:
    fell = context.felled(PROBE, find_attack(PROBE), FAR, context.steps)
    return Far(Proportion.of(~fell), context.chance)


def _judge_far(found: Far, policy: Policy) -> Judgement:
    return at_most(found.held.low, found.chance)


def _say_far(found: Far, judged: Judgement) -> str:
    return (
        f"At eps {FAR:g}, where no classifier can do better than chance ({100 * found.chance:.1f} %), "
        f"{found.held.successes} of {found.held.n} clips still hold: {found.held}."
    )


def _record_far(found: Far) -> Mapping[str, JsonValue]:
    return {"far": found.held.as_dict(), "chance": found.chance}


def still(context: Context) -> Proportion:
    """Clips that keep their class under an attack with eps = 0."""
    before = np.concatenate([each.label for each in context.answers])
    return Proportion.of(context.attacked(PROBE, find_attack(PROBE), 0.0, 1) == before)


def _judge_still(found: Proportion, policy: Policy) -> Judgement:
    return at_least(found.share, 1.0)


def _say_still(found: Proportion, judged: Judgement) -> str:
    return f"With no budget at all an attack leaves {found.successes} of {found.n} clips their class."


BITE = Check("attacks bite", far, _judge_far, _say_far, _record_far, effort=lambda steps: steps)
NOTHING = Check(
    "nothing at eps 0",
    still,
    _judge_still,
    _say_still,
    record=lambda found: {"still": found.as_dict()},
    effort=lambda steps: 1,
)

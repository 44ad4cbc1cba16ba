"""The gate: every check measured on one model, and the verdict that follows from a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import JsonValue

from hardroute.audit.attacks.model_state import untouched
from hardroute.audit.checks.check import Check, Outcome, Verdict
from hardroute.audit.checks.context import Context
from hardroute.audit.checks.registry import CHECKS
from hardroute.audit.evaluation.cost import counted
from hardroute.audit.policy import Policy


@dataclass(frozen=True)
class Measurement:
    """A row of CHECKS and what it measured."""

    check: Check[Any]
    measured: Any

    def judged(self, policy: Policy) -> Outcome:
        """What the policy makes of it."""
        judgement = self.check.judge(self.measured, policy)
        sentence = self.check.describe(self.measured, judgement)
        return Outcome(self.check.name, judgement, sentence, self.check.headline)


@dataclass(frozen=True)
class Measurements:
    """What the checks that apply measured, by name and in the order of CHECKS.

    Attributes:
        passes: clips that went through the model for all of them: hardroute.audit.evaluation.cost.KINDS.
    """

    each: Mapping[str, Measurement]
    passes: np.ndarray

    def record(self) -> dict[str, JsonValue]:
        """The figures behind the checks, as `sanity` of report.json keeps them."""
        figures: dict[str, JsonValue] = {}
        for name, found in self.each.items():
            own = found.check.record(found.measured)
            if taken := own.keys() & figures.keys():
                raise ValueError(f"check {name}: another check records {', '.join(sorted(taken))} already")
            figures |= own
        return figures


def measure(context: Context, progress: Callable[[int, int, str], None] | None = None) -> Measurements:
    """Runs every check that applies, and leaves the model as it was.

    `progress`: called with (done, total, what), in steps of attacks on clips.
    """
    rows = [row for each in CHECKS.values() for row in ((each,) if isinstance(each, Check) else tuple(each(context)))]
    done, total = 0, len(context.sample) * sum(row.effort(context.steps) for row in rows)

    def tick(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, total, "looking for masked gradients")

    watched = replace(context, tick=tick)
    found: dict[str, Measurement] = {}
    with untouched(context.model), counted(context.model) as passes:
        tick(0)
        for row in rows:
            measured = row.measure(watched)
            if measured is not None:
                found[row.name] = Measurement(row, measured)
        return Measurements(found, passes.total)


def decide(found: Measurements, policy: Policy) -> Verdict:
    """Holds what was measured against the policy."""
    return Verdict(tuple(each.judged(policy) for each in found.each.values()))

"""A check of the gate is a row: measure, judge, describe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import JsonValue

from hardroute.audit.checks.context import Context
from hardroute.audit.policy import Policy

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Judgement:
    """One number against its bound: `measured` must be `wants` (at least, or at most) `bound`."""

    measured: float
    wants: Literal["at least", "at most"]
    bound: float

    @property
    def passed(self) -> bool:
        # Written so that NaN fails either way.
        return self.measured >= self.bound if self.wants == "at least" else self.measured <= self.bound


def at_least(measured: float, bound: float) -> Judgement:
    """More is better."""
    return Judgement(measured, "at least", bound)


def at_most(measured: float, bound: float) -> Judgement:
    """Less is better."""
    return Judgement(measured, "at most", bound)


def nothing(measured: Any) -> Mapping[str, JsonValue]:
    """For rows whose judgement says it all."""
    return {}


@dataclass(frozen=True)
class Check(Generic[Measured]):
    """A row of CHECKS.

    Attributes:
        name: what verdict, report and page call it.
        measure: looks at the model, or at what the audit found; None where there is nothing to ask.
        judge: holds what was measured against the policy.
        describe: says it in a sentence that a person understands; given the judgement, too.
        record: the figures behind it by name, as `sanity` of report.json keeps them; names are unique among the rows.
        effort: steps of attacks that `measure` takes on each clip of the sample when attacks take `steps`; a guide to
            the time left.
        headline: its sentence is told to whoever started the audit even where it passed.
    """

    name: str
    measure: Callable[[Context], Measured | None]
    judge: Callable[[Measured, Policy], Judgement]
    describe: Callable[[Measured, Judgement], str]
    record: Callable[[Measured], Mapping[str, JsonValue]] = nothing
    effort: Callable[[int], int] = lambda steps: 0
    headline: bool = False


# Rows that depend on what is audited, such as one for each undefended model.
Family = Callable[[Context], Iterable[Check[Any]]]


@dataclass(frozen=True)
class Outcome:
    """What became of one check: its judgement and the sentence that says it."""

    name: str
    judgement: Judgement
    sentence: str
    headline: bool = False

    @property
    def passed(self) -> bool:
        return self.judgement.passed

    @property
    def measured(self) -> float:
        return self.judgement.measured

    @property
    def wants(self) -> str:
        return self.judgement.wants

    @property
    def bound(self) -> float:
        return self.judgement.bound


@dataclass(frozen=True)
class Verdict:
    """Passed if every check did."""

    checks: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

"""An attack that sees more of the model must not find less than one that sees less."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hardroute.audit.checks.check import Check, Judgement, at_most
from hardroute.audit.checks.context import Context
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.policy import Policy

# Need no gradient. In a suite, each counts against the attacks that do.
BLACK_BOX = ("noise", "nes", "square")
MAX_ONLY = 0.02  # share of clips: an attack that sees less may find a few more, not many


@dataclass(frozen=True)
class Only:
    """Clips that fall to nothing but attacks that see less, and the names of these or of where they come from."""

    names: tuple[str, ...]
    found: Proportion


def judge(only: Only, policy: Policy) -> Judgement:
    return at_most(only.found.share, MAX_ONLY)


def without_gradients(context: Context) -> Only | None:
    """Clips that only attacks without gradients fell; None if the suite has none of these."""
    evaluation, eps = context.evaluation, context.eps
    blind = tuple(name for name in evaluation.attacks if name in BLACK_BOX)
    if not blind:
        return None
    seeing = [name for name in evaluation.attacks if name not in BLACK_BOX]
    held = np.logical_and.reduce([evaluation.clean, *(evaluation.per_attack[name][eps] for name in seeing)])
    fell = ~np.logical_and.reduce([evaluation.per_attack[name][eps] for name in blind])
    return Only(blind, Proportion.of(held & fell))


def _say_without_gradients(only: Only, judged: Judgement) -> str:
    return (
        f"{only.found.successes} of {only.found.n} clips fall to {' or '.join(only.names)}, which uses no gradient, "
        "and to no attack that does."
    )


def from_elsewhere(context: Context) -> Only | None:
    """Clips that only fall to what was made on another model; None if none was shown."""
    foreign = context.foreign
    return Only(tuple(foreign.bundles), Proportion.of(foreign.only)) if foreign else None


def _say_from_elsewhere(only: Only, judged: Judgement) -> str:
    return (
        f"{only.found.successes} of {only.found.n} clips fall to a clip made on {' or '.join(only.names)}, "
        "and to no attack on the model itself."
    )


GRADIENTS_LEAD = Check("gradients lead", without_gradients, judge, _say_without_gradients)
WHITE_BOX_LEADS = Check("white box leads", from_elsewhere, judge, _say_from_elsewhere)


@dataclass(frozen=True)
class Undefended:
    """A model trained without a defence: clips it gets right `before` and `after` attacks on itself."""

    name: str
    attacks: tuple[str, ...]
    before: Proportion
    after: Proportion
    chance: float

    @property
    def stood(self) -> bool:
        """It was better than chance unattacked: without that its fall shows nothing."""
        return self.before.low > self.chance


def undefended_fall(context: Context) -> Iterator[Check[Undefended]]:
    """A row for each undefended model that was shown: these attacks must bring it down to chance."""
    for name in context.foreign.undefended if context.foreign else ():
        yield _falls(name)


def _falls(name: str) -> Check[Undefended]:
    def measure(context: Context) -> Undefended | None:
        if context.foreign is None:
            return None
        matrix = context.foreign.matrix
        before, after = Proportion.of(matrix.clean[name]), Proportion.of(matrix.white_box(name))
        return Undefended(name, matrix.attacks, before, after, context.chance)

    return Check(f"{name} falls", measure, _judge_undefended, _say_undefended)


def _judge_undefended(found: Undefended, policy: Policy) -> Judgement:
    return at_most(found.after.low if found.stood else math.nan, found.chance)


def _say_undefended(found: Undefended, judged: Judgement) -> str:
    return (
        f"Undefended, {found.name} should do no better than chance ({100 * found.chance:.1f} %) under "
        f"{', '.join(found.attacks)}: it gets {found.after.successes} of {found.after.n} clips right, {found.after}; "
        f"{found.before} unattacked"
        + ("." if found.stood else ", which is no better than chance either and so shows nothing.")
    )

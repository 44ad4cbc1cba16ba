"""Flags: signs that a good figure would mean nothing, each a check that can refuse, with a sentence for a person."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hardroute.audit.checks.sanity import FAR, Sanity
from hardroute.audit.checks.second_choice import FEWEST, weakest
from hardroute.audit.checks.strength import BLACK_BOX, Strength
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.evaluation.transfer import Transferred

# float32 sums in another order differ by about 1e-6; randomness that hinders an attack moves logits far more.
MAX_REPEAT_DIFFERENCE = 1e-4
MAX_BATCH_DIFFERENCE = 1e-3
MAX_SATURATED = 0.25  # share of clips
MIN_P = 0.01  # of all sign tests together: below it, a weaker attack is the stronger
MAX_BLACK_BOX = 0.02  # share of clips: an attack without gradients may find a few more, not many


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


def flags(sanity: Sanity, max_dead: float, min_second: float | None) -> Iterator[Check]:
    """Yields what `inspect` found as checks.

    `max_dead`: share of clips without a gradient. `min_second`: see `Thresholds.min_second_choice`.
    """
    yield _at_most(
        "usable gradients",
        sanity.dead_gradients.share,
        max_dead,
        f"{_clips(sanity.dead_gradients)} give an attack no gradient to follow (all zero, or not finite).",
    )
    yield _at_most(
        "usable router gradients",
        sanity.dead_router.share,
        max_dead,
        f"{_clips(sanity.dead_router)} give an attack on the router no gradient to follow.",
    )
    yield _at_most(
        "unsaturated outputs",
        1.0 if sanity.probabilities else sanity.saturated.share,
        MAX_SATURATED,
        "The model gives probabilities where logits belong: cross-entropy attacks lose their way there."
        if sanity.probabilities
        else f"For {_clips(sanity.saturated)} the largest class probability rounds to 1: "
        "cross-entropy has next to no gradient there.",
    )
    yield _at_most(
        "attacks bite",
        sanity.far.low,
        sanity.chance,
        f"At eps {FAR:g}, where no classifier can do better than chance ({100 * sanity.chance:.1f} %), "
        f"{sanity.far.successes} of {sanity.far.n} clips still hold: {sanity.far}.",
    )
    yield Check(
        "nothing at eps 0",
        sanity.still.share,
        "at least",
        1.0,
        f"With no budget at all an attack leaves {sanity.still.successes} of {sanity.still.n} clips their class.",
    )
    yield from _strength(sanity.strength)
    yield _second(sanity, min_second)
    yield _at_most(
        "repeatable",
        sanity.repeat_difference,
        MAX_REPEAT_DIFFERENCE,
        f"Asked twice, router or model differ by {sanity.repeat_difference:.1e} of their largest logit.",
    )
    yield _at_most(
        "clips independent",
        sanity.batch_difference,
        MAX_BATCH_DIFFERENCE,
        f"Alone or in a batch, a clip differs by {sanity.batch_difference:.1e} of the largest logit.",
    )
    training = sanity.training
    yield _at_most(
        "ready to serve",
        len(training),
        0,
        f"Modules left in training mode: {', '.join(training[:3]) or 'none'}"
        + (f" and {len(training) - 3} more." if len(training) > 3 else "."),
    )


def black_box(evaluation: Evaluation, eps: float) -> Iterator[Check]:
    """Yields a check on clips that only attacks without gradients felled; nothing if the suite has none of these."""
    blind = [name for name in evaluation.attacks if name in BLACK_BOX]
    if not blind:
        return
    seeing = [name for name in evaluation.attacks if name not in BLACK_BOX]
    held = np.logical_and.reduce([evaluation.clean, *(evaluation.per_attack[name][eps] for name in seeing)])
    only = Proportion.of(held & ~np.logical_and.reduce([evaluation.per_attack[name][eps] for name in blind]))
    yield _at_most(
        "gradients lead",
        only.share,
        MAX_BLACK_BOX,
        f"{_clips(only)} fall to {' or '.join(blind)}, which uses no gradient, and to no attack that does.",
    )


def transferred(foreign: Transferred, chance: float) -> Iterator[Check]:
    """Yields checks on what other models' clips do to this one, and this audit's attacks to undefended ones."""
    only = Proportion.of(foreign.only)
    yield _at_most(
        "white box leads",
        only.share,
        MAX_BLACK_BOX,
        f"{_clips(only)} fall to a clip made on {' or '.join(foreign.bundles)}, and to no attack on the model itself.",
    )
    for name in foreign.undefended:
        before, after = Proportion.of(foreign.matrix.clean[name]), Proportion.of(foreign.matrix.white_box(name))
        stood = before.low > chance
        yield _at_most(
            f"{name} falls",
            after.low if stood else math.nan,
            chance,
            f"Undefended, {name} should do no better than chance ({100 * chance:.1f} %) under "
            f"{', '.join(foreign.matrix.attacks)}: it gets {_clips(after)} right, {after}; {before} unattacked"
            + ("." if stood else ", which is no better than chance either and so shows nothing."),
        )


def _strength(strength: Strength) -> Iterator[Check]:
    worst = min(strength.comparisons, key=lambda each: each.p)
    yield Check(
        "stronger is stronger",
        worst.p,
        "at least",
        MIN_P / len(strength.comparisons),
        f"Of {strength.clips} clips right unattacked, {worst.weaker} fells {worst.weaker_only} that {worst.stronger} "
        f"leaves standing, and {worst.stronger_only} the other way round (p of a sign test; the worst of "
        f"{len(strength.comparisons)} comparisons).",
    )
    yield _at_most(
        "noise is weaker",
        strength.noise_only.successes,
        0,
        f"Random noise fells {strength.noise_only.successes} of {strength.noise_only.n} clips that every attack "
        "of the suite leaves standing.",
    )


def _second(sanity: Sanity, bound: float | None) -> Check:
    bound, worst = sanity.chance if bound is None else bound, weakest(sanity.second)
    if worst is None:
        sentence = f"No expert is the router's second choice for {FEWEST} clips or more, so none could be judged."
        return Check("weakest expert", 1.0, "at least", bound, sentence)
    found = sanity.second[worst]
    return Check(
        "weakest expert",
        found.low,
        "at least",
        bound,
        f"Expert {worst} is the router's second choice for {found.n} clips and classifies {found.successes} of them "
        f"right: {found}. A push of the router is all that keeps them from it.",
    )


def _clips(found: Proportion) -> str:
    return f"{found.successes} of {found.n} clips"


def _at_most(name: str, measured: float, bound: float, sentence: str) -> Check:
    return Check(name, measured, "at most", bound, sentence)

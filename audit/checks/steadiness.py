"""The same clip gets the same answer: asked twice, alone or among others, and from a model that is ready to serve."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from pydantic import JsonValue

from hardroute.audit.checks.check import Check, Judgement, at_most
from hardroute.audit.checks.context import Context
from hardroute.audit.evaluation.attack_batch import judge as answer
from hardroute.audit.policy import Policy

# float32 sums in another order differ by about 1e-6; randomness that hinders an attack moves logits far more.
MAX_REPEAT_DIFFERENCE = 1e-4
MAX_BATCH_DIFFERENCE = 1e-3
PARTS = ("logits", "router")


def between_repeats(context: Context) -> float:
    """Largest difference of a logit, of router or model, between two forwards of the same clips.

    As a share of the largest logit, which counts as 1 at least; infinite where an answer is not finite.
    """
    pairs = zip(context.answers, context.ask(), strict=True)
    return max(difference(getattr(one, part), getattr(other, part)) for one, other in pairs for part in PARTS)


def between_batches(context: Context) -> float:
    """The same between a clip alone and among others."""
    clips, labels = context.batches[0]
    alone, among = answer(context.model, clips[:1], labels[:1]), context.answers[0]
    return max(difference(getattr(among, part)[:1], getattr(alone, part)) for part in PARTS)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """As a share of the largest logit, but at least of 1; infinite where an answer is not finite."""
    scale = max(1.0, float(np.abs(first).max()))
    largest = float(np.abs(first - second).max()) / scale
    return largest if math.isfinite(largest) else math.inf


def _finite(value: float) -> float | None:
    # JSON has no infinity; null stands for "no finite answer".
    return value if math.isfinite(value) else None


def _judge_repeats(found: float, policy: Policy) -> Judgement:
    return at_most(found, MAX_REPEAT_DIFFERENCE)


def _judge_batches(found: float, policy: Policy) -> Judgement:
    return at_most(found, MAX_BATCH_DIFFERENCE)


REPEATABLE = Check(
    "repeatable",
    between_repeats,
    _judge_repeats,
    lambda found, judged: f"Asked twice, router or model differ by {found:.1e} of their largest logit.",
    record=lambda found: {"repeat_difference": _finite(found)},
)
INDEPENDENT = Check(
    "clips independent",
    between_batches,
    _judge_batches,
    lambda found, judged: f"Alone or in a batch, a clip differs by {found:.1e} of the largest logit.",
    record=lambda found: {"batch_difference": _finite(found)},
)


def in_training(context: Context) -> tuple[str, ...]:
    """Names of the modules that were found in training mode."""
    return context.training


def _judge_training(names: tuple[str, ...], policy: Policy) -> Judgement:
    return at_most(len(names), 0)


def _say_training(names: tuple[str, ...], judged: Judgement) -> str:
    more = f" and {len(names) - 3} more." if len(names) > 3 else "."
    return f"Modules left in training mode: {', '.join(names[:3]) or 'none'}{more}"


def _record_training(names: tuple[str, ...]) -> Mapping[str, JsonValue]:
    return {"training": list(names)}


READY = Check("ready to serve", in_training, _judge_training, _say_training, _record_training)

"""Predictions with any route, margin and logits, and baselines of them, without a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hardroute import Prediction, Route
from hardroute.runtime.bundle import Baseline
from hardroute.runtime.inference import Timing
from hardroute.runtime.prediction import softmax


def prediction(
    expert: int = 0,
    margin: float = 0.5,
    log_odds: float = 3.0,
    *,
    label: int = 0,
    experts: int = 4,
    classes: int = 3,
) -> Prediction:
    """An answer with this route, this margin, and logits whose label has these log odds."""
    logits = np.zeros(classes, np.float32)
    # Against classes - 1 others at 0, whose log-sum-exp is log(classes - 1).
    logits[label] = log_odds + np.log(classes - 1)
    probabilities = softmax(logits)
    weights = np.full(experts, 1 / experts, np.float32)
    return Prediction(
        label=str(label),
        index=label,
        probability=float(probabilities[label]),
        probabilities=probabilities,
        logits=logits,
        route=Route(expert, weights, np.log(weights), margin),
        milliseconds=Timing(0.0, 0.0, 0.0),
        clip="",
        clip_sha256="",
    )


def traffic(
    count: int,
    seed: int,
    load: Sequence[float] = (0.4, 0.3, 0.2, 0.1),
    *,
    margin: float = 1.0,
    log_odds: float = 3.0,
) -> list[Prediction]:
    """Independent answers: expert by `load`, margin = U ** (1 / margin), log odds normal around `log_odds`."""
    rng = np.random.default_rng(seed)
    return [
        prediction(
            int(rng.choice(len(load), p=load)),
            rng.random() ** (1 / margin),
            rng.normal(log_odds),
            label=int(rng.integers(3)),
            experts=len(load),
        )
        for _ in range(count)
    ]


def baseline(count: int = 200, seed: int = 0) -> Baseline:
    """Of `traffic` as it usually is."""
    return Baseline.of(traffic(count, seed))

"""What the certified clips looked like to the deployed runtime: the yardstick of the watch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hardroute.runtime.bundle.manifest import MAX_CLASSES, MAX_EXPERTS
from hardroute.runtime.prediction import Prediction

MAX_SAMPLE: Final = 1000
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Margin = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_LogOdds = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]


def log_odds(logits: np.ndarray) -> float:
    """log p / (1 - p) of the most probable label, from logits (K,): the unknown-input score; low where unsure.

    It orders clips as the largest probability does, the plainest known score for inputs unlike the training set
    (Hendrycks and Gimpel, 2017), but does not run into 1. The free energy -log sum exp (Liu et al., 2020) was tried
    and lost: for the shipped bundle, real video has as much evidence as certified clips, only not for one class.
    """
    logits = logits.astype(np.float64)
    label = logits.argmax()
    others = np.delete(logits, label)
    largest = others.max()
    return float(logits[label] - largest - np.log(np.exp(others - largest).sum()))


class Baseline(BaseModel):
    """Routes and scores of clips that count as normal.

    Attributes:
        experts: clips that each of the M experts answered.
        labels: clips that got each of the K labels.
        margins: router margins of all clips, or of 1000 drawn at random if there are more; ascending. A random
            sample, not quantiles: its ranks are then as exchangeable with new clips as those of all clips.
        log_odds: `log_odds` of the same clips; ascending.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    experts: tuple[_Count, ...] = Field(min_length=1, max_length=MAX_EXPERTS)
    labels: tuple[_Count, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    margins: tuple[_Margin, ...] = Field(min_length=1, max_length=MAX_SAMPLE)
    log_odds: tuple[_LogOdds, ...] = Field(min_length=1, max_length=MAX_SAMPLE)

    @property
    def clips(self) -> int:
        """How many clips were measured."""
        return sum(self.experts)

    @model_validator(mode="after")
    def _consistent(self) -> Baseline:
        if sum(self.labels) != self.clips:
            raise ValueError(f"labels: they count {sum(self.labels)} clips, experts {self.clips}")
        for name, sample in (("margins", self.margins), ("log_odds", self.log_odds)):
            if len(sample) != min(self.clips, MAX_SAMPLE):
                raise ValueError(f"{name}: {len(sample)} values for {self.clips} clips")
            if any(b < a for a, b in pairwise(sample)):
                raise ValueError(f"{name}: not in ascending order")
        return self

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> Baseline:
        """Measures a baseline from answers of one engine to clips that stand for its normal traffic.

        Raises:
            ValueError: no predictions.
        """
        if not predictions:
            raise ValueError("a baseline needs at least one prediction")
        first = predictions[0]
        # Drawn together, so that both samples are of the same clips; seeded, so that an audit repeats.
        drawn = np.random.default_rng(0).permutation(len(predictions))[:MAX_SAMPLE]
        chosen = [predictions[n] for n in drawn]
        experts = np.bincount([p.route.expert for p in predictions], minlength=len(first.route.weights))
        labels = np.bincount([p.index for p in predictions], minlength=len(first.logits))
        return cls(
            experts=tuple(experts.tolist()),
            labels=tuple(labels.tolist()),
            margins=tuple(sorted(p.route.margin for p in chosen)),
            log_odds=tuple(sorted(log_odds(p.logits) for p in chosen)),
        )

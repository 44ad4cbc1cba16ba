"""What the traffic looks like lately, in the figures that alarms and metrics quote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from runtime.prediction import Prediction
from runtime.watch.baseline import Baseline, log_odds
from runtime.watch.detector import COLLAPSE, LOAD, LOW_MARGIN

MEMORY: Final = 32  # windows; older ones fade
MAJORITY: Final = 0.5  # share of the recent windows that one expert answers in a collapse
LOW: Final = 0.1  # share of the certified clips whose margin counts as low
ODD: Final = 0.1  # share of the certified clips whose log odds count as odd: half too low, half too high


class Recent:
    """Shares among the last windows, older ones fading; they start as in the baseline.

    Attributes:
        load: (M,) share of each expert.
        certified: (M,) the baseline's.
        low: share of router margins below `low_margin`, which a tenth of the certified ones are.
        odd: share of log odds outside `usual`, which holds the middle nine tenths of the certified ones.
    """

    def __init__(self, baseline: Baseline) -> None:
        self.certified = np.array(baseline.experts) / baseline.clips
        self.load, self.low, self.odd = self.certified, LOW, ODD
        self.low_margin = _at(baseline.margins, LOW)
        self.usual = _at(baseline.log_odds, ODD / 2), _at(baseline.log_odds, 1 - ODD / 2)
        self._labels = np.zeros(len(baseline.labels))
        self._certified_labels = np.array(baseline.labels) / baseline.clips

    def add(self, prediction: Prediction) -> None:
        """Takes the next window."""
        least, most = self.usual
        mine = np.arange(len(self.load)) == prediction.route.expert
        self.load = self.load + (mine - self.load) / MEMORY
        self.low += ((prediction.route.margin < self.low_margin) - self.low) / MEMORY
        self.odd += ((not least <= log_odds(prediction.logits) <= most) - self.odd) / MEMORY
        self._labels[prediction.index] += 1

    @property
    def label_distance(self) -> float:
        """Total variation, in [0, 1], of the labels of all windows from the baseline's; 0 before the first."""
        if not self._labels.any():
            return 0.0
        return float(np.abs(self._labels / self._labels.sum() - self._certified_labels).sum() / 2)

    def describe(self, kind: str, expert: int | None) -> str:
        """One line on what an alarm of this kind is about."""
        if kind in (COLLAPSE, LOAD):
            mine, before = self.load[expert], self.certified[expert]
            return f"expert {expert} answers {mine:.0%} of the windows lately, {before:.0%} of the certified clips"
        if kind == LOW_MARGIN:
            what, now, certified = f"a router margin below {self.low_margin:.3g}", self.low, LOW
        else:
            least, most = self.usual
            what, now, certified = f"log odds of the label outside {least:.3g} to {most:.3g}", self.odd, ODD
        return f"{now:.0%} of the windows lately have {what}, {certified:.0%} of the certified clips"


def _at(ascending: Sequence[float], share: float) -> float:
    return ascending[min(int(share * len(ascending)), len(ascending) - 1)]

"""The four tests side by side: from a window's prediction to the evidence for each kind of alarm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from hardroute.runtime.bundle.baseline import Baseline, log_odds
from hardroute.runtime.prediction import Prediction
from hardroute.runtime.watch.evidence import Evidence
from hardroute.runtime.watch.ranks import ChoiceRanks, NumberRanks

COLLAPSE, LOAD, LOW_MARGIN, UNKNOWN = KINDS = ("collapse", "load", "low-margin", "unknown")
# Shares of the windows that a change is supposed to hit.
_NEARLY_ALL: Final = (0.95,)
_SOME: Final = (0.1, 0.25, 0.5)


class Detector:
    """Evidence from the windows of one period, all compared with the baseline and with each other.

    Args:
        baseline: what counts as normal.
        rng: breaks ties.

    Attributes:
        windows: how many were added.
    """

    def __init__(self, baseline: Baseline, rng: np.random.Generator) -> None:
        self._rng = rng
        self._experts = ChoiceRanks(baseline.experts)
        self._margins, self._log_odds = NumberRanks(baseline.margins), NumberRanks(baseline.log_odds)
        experts = len(baseline.experts)
        self._evidence = {
            COLLAPSE: Evidence(experts, _NEARLY_ALL),
            LOAD: Evidence(experts, _SOME, high=True),
            LOW_MARGIN: Evidence(1, _SOME + _NEARLY_ALL),
            # Both sides: networks are known to be too sure of some inputs that they were never trained on.
            UNKNOWN: Evidence(1, _SOME + _NEARLY_ALL, high=True),
        }
        self.windows = 0

    @property
    def evidence(self) -> Mapping[str, Evidence]:
        """By kind of alarm, in the order of `KINDS`."""
        return self._evidence

    def add(self, prediction: Prediction) -> None:
        """Takes the next window."""
        u = self._rng.random(3)
        route = self._experts.add(prediction.route.expert, u[0])
        margin = self._margins.add(prediction.route.margin, u[1])
        sure = self._log_odds.add(log_odds(prediction.logits), u[2])
        for kind, p in zip(KINDS, (route, route, np.array([margin]), np.array([sure])), strict=True):
            self._evidence[kind].add(p)
        self.windows += 1

"""How far an attack moves a model's answers: overlap of softmaxes (IoU) and local slope (Lips)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from hardroute.audit.evaluation.statistics import CONFIDENCE

BINS = 20  # of an IoU histogram over [0, 1]


def iou(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Overlap of two softmaxes per clip: sum of minima over sum of maxima, logits (N, K) -> (N,) in [0, 1].

    1: the same distribution; 0: none in common. With total variation distance v it equals (1 - v) / (1 + v).
    NaN where a logit is not finite.
    """
    first, second = _softmax(before), _softmax(after)
    return np.minimum(first, second).sum(1) / np.maximum(first, second).sum(1)


def slope(before: np.ndarray, after: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """||g(x) - g(x_adv)||_2 / ||x - x_adv||_2 per clip: logits (N, K) and distances (N,) -> (N,).

    Logits per unit of pixel range. NaN where nothing was moved, or a logit is not finite.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = np.linalg.norm(after.astype(np.float64) - before.astype(np.float64), axis=1)
        found = moved / np.where(distance > 0, distance, np.nan)
    return np.where(np.isfinite(found), found, np.nan)


@dataclass
class Measures:
    """Of one attack at one eps, (N,) float64 each; NaN where the attack was not run.

    Attributes:
        router_iou, model_iou: `iou` of the router's softmax and of the model's, unattacked and attacked.
        router_slope, model_slope: `slope` of the router's logits and of the model's: Lips-R and Lips-J.
    """

    router_iou: np.ndarray
    model_iou: np.ndarray
    router_slope: np.ndarray
    model_slope: np.ndarray

    @classmethod
    def none(cls, clips: int) -> Measures:
        return cls(*(np.full(clips, np.nan) for _ in range(4)))

    def enter(
        self,
        clips: np.ndarray,
        router: tuple[np.ndarray, np.ndarray],
        model: tuple[np.ndarray, np.ndarray],
        distance: np.ndarray,
    ) -> None:
        """Enters clips (indices): logits (before, after) of router and model, and ||x - x_adv||_2."""
        self.router_iou[clips], self.model_iou[clips] = iou(*router), iou(*model)
        self.router_slope[clips], self.model_slope[clips] = slope(*router, distance), slope(*model, distance)

    def of(self, some: np.ndarray) -> Measures:
        """A copy with the clips where `some` (N,) bool is true; the others as never measured."""
        every = (self.router_iou, self.model_iou, self.router_slope, self.model_slope)
        return Measures(*(np.where(some, each, np.nan) for each in every))


def summary(values: np.ndarray) -> dict[str, Any]:
    """Of the values that are not NaN: n, mean with the normal 95 % interval of the mean, median and maximum."""
    known = values[~np.isnan(values)]
    if not len(known):
        return {"n": 0, "mean": None, "low": None, "high": None, "median": None, "max": None}
    mean = float(known.mean())
    spread = float(known.std(ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else 0.0
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * spread
    return {
        "n": len(known),
        "mean": mean,
        "low": max(0.0, mean - half),
        "high": mean + half,
        "median": float(np.median(known)),
        "max": float(known.max()),
    }


def distribution(values: np.ndarray) -> dict[str, Any]:
    """`summary` of values in [0, 1], and how many fall into each of BINS equal bins."""
    known = values[~np.isnan(values)].clip(0, 1)
    return {**summary(values), "histogram": np.histogram(known, BINS, (0, 1))[0].tolist()}


def _softmax(logits: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)

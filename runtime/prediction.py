"""What the engine answers about a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float32; shifted by the maximum so that large logits do not overflow."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Route:
    """Which expert answered, and how sure the router was.

    Attributes:
        expert: index of the expert with the largest router logit (the first of equals).
        logits: (M,) float32, the router's scores.
        weights: (M,) float32, their softmax.
        margin: weight of the first minus weight of the second, in [0, 1]; 1 where there is one expert.

    >>> Route.from_logits(np.array([0.0, 0.0, np.log(2.0)], np.float32)).expert
    2
    """

    expert: int
    weights: np.ndarray
    logits: np.ndarray
    margin: float

    @classmethod
    def from_logits(cls, logits: np.ndarray) -> Route:
        """The top-1 route of one clip's router logits (M,)."""
        return cls.batch(logits[None])[0]

    @classmethod
    def batch(cls, logits: np.ndarray) -> list[Route]:
        """The top-1 routes of N clips' router logits (N, M). Nothing else decides which expert answers."""
        weights = softmax(logits)
        # Lists where there are few numbers: this runs for every clip, just after a network has emptied the caches.
        experts, margins = logits.argmax(axis=1).tolist(), map(_margin, weights.tolist())
        return list(map(cls, experts, weights, logits, margins))  # in the order of the fields


def _margin(weights: list[float]) -> float:
    *_, second, first = sorted([0.0, *weights])
    return first - second


@dataclass(frozen=True)
class Timing:
    """Milliseconds of wall clock for one clip.

    In a batch, `route` is the batch's time divided by its clips, and `expert` the time of the chosen expert's
    run divided by the clips that it answered in that run.

    Attributes:
        decode: from the file to frames of the contract; 0 where the frames were handed in.
        route: frames to float, and the router.
        expert: the chosen expert.
    """

    decode: float
    route: float
    expert: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one clip.

    Attributes:
        label: the most probable class.
        index: its place in the bundle's classes.
        probability: of that class, in [0, 1].
        probabilities: (K,) float32, softmax of `logits`.
        logits: (K,) float32, of the chosen expert, not scaled by its weight.
        route: the router's choice.
        milliseconds: where the time went.
        clip: name of the video; empty where bare frames were handed in.
        clip_sha256: SHA-256 of the video file's bytes; empty where bare frames were handed in.
    """

    label: str
    index: int
    probability: float
    probabilities: np.ndarray
    logits: np.ndarray
    route: Route
    milliseconds: Timing
    clip: str
    clip_sha256: str

    @classmethod
    def batch(
        cls, classes: Sequence[str], routes: Sequence[Route], logits: np.ndarray, timings: Sequence[Timing]
    ) -> list[Prediction]:
        """The answers for N clips whose networks have run.

        Args:
            classes: the K labels.
            routes: one for each clip.
            logits: (N, K) float32, of each clip's chosen expert.
            timings: one for each clip.
        """
        probabilities = softmax(logits)
        answers = zip(logits.argmax(axis=1).tolist(), probabilities, logits, routes, timings, strict=True)
        return [
            cls(classes[index], index, own.item(index), own, scores, route, timing, "", "")
            for index, own, scores, route, timing in answers
        ]

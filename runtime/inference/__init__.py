"""A bundle answers: the networks, the engine around them, and many callers' clips in one run."""

from hardroute.runtime.inference.batcher import MAX_WAIT, BatcherStats, MicroBatcher
from hardroute.runtime.inference.engine import Engine
from hardroute.runtime.inference.multi_clip import VideoPrediction
from hardroute.runtime.inference.networks import MAX_BATCH
from hardroute.runtime.prediction import Prediction, Route, Timing

__all__ = [
    "MAX_BATCH",
    "MAX_WAIT",
    "BatcherStats",
    "Engine",
    "MicroBatcher",
    "Prediction",
    "Route",
    "Timing",
    "VideoPrediction",
]

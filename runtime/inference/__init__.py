"""A bundle answers: the networks, the engine around them, and many callers' clips in one run."""

from hardroute.runtime.inference.batcher import MicroBatcher
from hardroute.runtime.inference.batcher_stats import BatcherStats
from hardroute.runtime.inference.engine import Engine
from hardroute.runtime.inference.multi_clip import VideoPrediction
from hardroute.runtime.prediction import Prediction, Route, Timing

__all__ = ["BatcherStats", "Engine", "MicroBatcher", "Prediction", "Route", "Timing", "VideoPrediction"]

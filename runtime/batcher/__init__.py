"""One engine for many callers: their clips are gathered, routed together, and answered expert by expert."""

from runtime.batcher.micro import MicroBatcher
from runtime.batcher.stats import BatcherStats

__all__ = ["BatcherStats", "MicroBatcher"]

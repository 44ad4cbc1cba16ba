"""Labelled sets of video files, for training and audit; serving does without."""

from hardroute.runtime.datasets.arrays import ClipArrays, load_clips
from hardroute.runtime.datasets.dataset import ClipRow, ClipSet
from hardroute.runtime.datasets.decode_cache import ClipCache
from hardroute.runtime.datasets.motion import cache_root
from hardroute.runtime.datasets.spec import open_set

__all__ = ["ClipArrays", "ClipCache", "ClipRow", "ClipSet", "cache_root", "load_clips", "open_set"]

"""Clips: one decode and one preprocessing behind a contract, and labelled sets of video files."""

from runtime.clips.contract import ClipContract
from runtime.clips.decode import DecodedClip, decode
from runtime.clips.limits import Limits
from runtime.clips.preprocess import to_network
from runtime.clips.sets import ClipArrays, ClipRow, ClipSet, load_clips, open_set

__all__ = [
    "ClipArrays",
    "ClipContract",
    "ClipRow",
    "ClipSet",
    "DecodedClip",
    "Limits",
    "decode",
    "load_clips",
    "open_set",
    "to_network",
]

"""Clips: one decode and one preprocessing behind a contract, and labelled sets of video files."""

from runtime.clips.arrays import ClipArrays, load_clips
from runtime.clips.contract import ClipContract
from runtime.clips.decode import DecodedClip, decode, decode_clips
from runtime.clips.limits import Limits
from runtime.clips.preprocess import to_network, to_planes
from runtime.clips.sets import ClipRow, ClipSet, open_set

__all__ = [
    "ClipArrays",
    "ClipContract",
    "ClipRow",
    "ClipSet",
    "DecodedClip",
    "Limits",
    "decode",
    "decode_clips",
    "load_clips",
    "open_set",
    "to_network",
    "to_planes",
]

"""Clips: one decode and one preprocessing behind a contract."""

from hardroute.runtime.clips.contract import ClipContract
from hardroute.runtime.clips.decoding import DecodedClip, decode, decode_clips
from hardroute.runtime.clips.limits import Limits
from hardroute.runtime.clips.preprocess import to_network, to_planes
from hardroute.runtime.clips.sampling import MAX_CLIPS, Spread

__all__ = [
    "MAX_CLIPS",
    "ClipContract",
    "DecodedClip",
    "Limits",
    "Spread",
    "decode",
    "decode_clips",
    "to_network",
    "to_planes",
]

"""What packets tell before one is decoded: when their frames are shown, and where decoding may begin."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from hardroute.runtime.clips.frame_source import Track
from hardroute.runtime.errors import ClipError

# Videos of no more bytes are read once; of larger ones the packets are read again when they are decoded.
HELD_BYTES: Final = 16 * 2**20
# Of each of these, a keyframe (of H.264 and HEVC: one that resets the decoder) and what is shown after it have the
# same pixels whether the frames before it were decoded or not.
_SEEKABLE: Final = frozenset(
    (
        *("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg1video", "mpeg2video", "mpeg4"),
        *("mjpeg", "ffv1", "huffyuv", "ffvhuff", "dvvideo", "prores", "dnxhd"),
    )
)
# A seek costs about as much as decoding so many frames, and the gain must be clear: short files are faster read
# through.
_SEEK_COST, _WORTHWHILE = 8, 0.5
# Seconds that a container may claim; a day is nobody's clip.
_LONGEST: Final = 86_400.0
# Seconds by which a frame may come out later than its packet, where packets say when they are decoded.
_DELAY: Final = 1.0


# Containers list frames that no decoder returns: genuine UCF-101 and HMDB-51 files are often one short.
_SHORT_FRAMES, _SHORT_SHARE = 2, 0.02
# Interlaced video may come in a packet for each field.
_FIELDS: Final = 1.5


class Tally:
    """Counts a track's packets as they come: how many frames it should have.

    Attributes:
        packets: so far. frames: that they hold, from the first keyframe on, since nothing before it can be decoded.
        latest, lasting: when the last frame is shown, and for how long (0: unknown), in ticks.
    """

    def __init__(self, track: Track) -> None:
        self._track = track
        self.packets = self.frames = self.lasting = 0
        self.latest: int | None = None
        self._keyed = False

    def add(self, packet: Any) -> bool:
        """Another one; whether it holds a frame that is to be shown."""
        self.packets += 1
        self._keyed = self._keyed or packet.is_keyframe
        if not self._keyed or packet.is_discard or _shows_nothing(self._track.codec, packet):
            return False
        self.frames += 1
        tick = self._track.tick(packet)
        if tick is not None and (self.latest is None or tick >= self.latest):
            self.latest, self.lasting = tick, packet.duration or 0
        return True

    @property
    def last_seconds(self) -> float:
        """For how long the last frame is shown."""
        return self._track.lasting(self._track.seconds(self.lasting))

    def expected(self, decoded: int, interlaced: bool) -> int:
        """Frames that a video read to its end should have given: what the track has packets for, lists, or lasts."""
        frames = self.frames
        if interlaced and frames > _FIELDS * decoded:
            frames = (frames + 1) // 2
        missing = max(0, self._track.promised - self.packets)
        end = self._track.promised_end()
        if end is not None and self.latest is not None:
            left = end - self._track.seconds(self.latest) - self.last_seconds
            missing = max(missing, round(min(left, _LONGEST) * self._track.fps))
        return frames + missing


def check_complete(name: str, decoded: int, expected: int) -> None:
    """Raise ClipError if clearly fewer frames could be decoded than the video track holds."""
    if expected - decoded > max(_SHORT_FRAMES, _SHORT_SHARE * expected):
        raise ClipError(
            f"{name}: only {decoded} of the {expected} frames that its video track holds could be "
            "decoded (damaged or cut off); copy it again, or allow short clips to use what there is"
        )


@dataclass
class Packets:
    """The packets of a track, in the order of decoding.

    Attributes:
        tally: of them.
        ticks: when each one's frame is shown (or decoded, where the container says no more); None: it does not say.
        resets: places of the keyframes at which decoding may begin. seeks: the ticks by which a container finds each.
        hidden: places of those whose frame is not to be shown.
        whole: all of them, rather than those up to a window's end.
        held: themselves, if they take no more than `HELD_BYTES`.
    """

    tally: Tally
    ticks: list[int | None] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    seeks: dict[int, int | None] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    whole: bool = True
    held: list[Any] | None = field(default_factory=list)

    @classmethod
    def read(cls, track: Track, packets: Iterable[Any], window: float | None) -> Packets:
        """Those whose frames may start within the first `window` seconds; None: all of them."""
        found, size, extradata = cls(Tally(track)), 0, track.extradata
        origin: int | None = None
        reach = None if window is None else window + _DELAY * track.decoding_times
        for place, packet in enumerate(packets):
            tick, decoded = track.tick(packet), packet.dts
            found.ticks.append(tick)
            if packet.is_keyframe and resets(track.codec, extradata, packet):
                found.resets.append(place)
                found.seeks[place] = tick if decoded is None else decoded
            if not found.tally.add(packet):
                found.hidden.add(place)
            elif tick is not None:
                origin = tick if origin is None else min(origin, tick)
            size += packet.size
            if found.held is not None and size <= HELD_BYTES:
                found.held.append(packet)
            else:
                found.held = None
            # No frame is shown before it is decoded.
            played = 0.0 if origin is None or decoded is None else track.seconds(decoded - origin)
            if reach is not None and played > reach:
                found.whole = False
                break
        return found

    @property
    def shown(self) -> list[int | None]:
        """The ticks of those whose frame is shown, in the order of decoding."""
        return [tick for place, tick in enumerate(self.ticks) if place not in self.hidden]

    def timeline(self) -> list[int] | None:
        """When the frames are shown, in ticks, increasing; None if that is not known of each, or not by itself."""
        shown = self.shown
        known = sorted(tick for tick in shown if tick is not None)
        distinct = all(a < b for a, b in itertools.pairwise(known))
        return known if known and distinct and len(known) == len(shown) else None

    def stretches(self, track: Track, wanted: Iterable[int]) -> list[tuple[int, set[int]]] | None:
        """What must be decoded for the frames at the ticks `wanted`, each of which is in the `timeline`.

        Returns:
            Where to begin, and the ticks to be had from there, in order; None if all had better be decoded.
        """
        if track.codec not in _SEEKABLE or (track.decoding_times and track.may_reorder):
            return None
        ticks = [tick for place in self.resets if (tick := self.ticks[place]) is not None]
        if len(ticks) < len(self.resets) or any(a >= b for a, b in itertools.pairwise(ticks)):
            return None
        places = {tick: place for place, tick in enumerate(self.ticks) if place not in self.hidden}
        found: dict[int, set[int]] = {}
        for tick in sorted(wanted):
            before = bisect.bisect_right(ticks, tick) - 1
            if before < 0:
                return None
            found.setdefault(self.resets[before], set()).add(tick)
        cost = sum(max(places[tick] for tick in some) - begin + _SEEK_COST for begin, some in found.items())
        return list(found.items()) if cost < _WORTHWHILE * len(self.ticks) else None


def _shows_nothing(codec: str, packet: Any) -> bool:
    # VP8 sends pictures that others refer to and nobody sees (RFC 6386, section 9.1).
    return codec == "vp8" and packet.size > 0 and not memoryview(packet)[0] & 0x10


def resets(codec: str, extradata: bytes, packet: Any) -> bool:
    """Whether a packet that its container calls a keyframe resets the decoder.

    Of H.264 (ITU-T H.264, table 7-1) containers give that name also to pictures from which one recovers slowly.
    """
    if codec not in ("h264", "hevc"):
        return True
    data = bytes(packet)
    for at in _unit_starts(codec, extradata, data):
        kind = data[at] & 31 if codec == "h264" else data[at] >> 1 & 63
        # The first unit that holds a picture decides.
        if codec == "h264" and 1 <= kind <= 5:
            return kind == 5
        if codec == "hevc" and kind < 32:
            return 16 <= kind <= 21
    return False


def _unit_starts(codec: str, extradata: bytes, data: bytes) -> Iterable[int]:
    """Where the units of a packet begin, which have a length before them or, in streams, a start code."""
    header = 5 if codec == "h264" else 22
    if len(extradata) > header and extradata[0] == 1:
        size, at = (extradata[header - 1] & 3) + 1, 0
        while at + size < len(data):
            yield at + size
            at += size + int.from_bytes(data[at : at + size], "big")
    else:
        at = data.find(b"\0\0\1")
        while 0 <= at < len(data) - 3:
            yield at + 3
            at = data.find(b"\0\0\1", at + 3)

"""The one frame source: files, network addresses and cameras give (seconds, frame), each frame whole or not at all.

PyAV (FFmpeg) reads files and addresses, by a list of demuxers and decoders; OpenCV reads this machine's cameras.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO, Final, NoReturn

import av
import numpy as np
from av.stream import Discard, Disposition

from hardroute.runtime.clips.limits import Limits
from hardroute.runtime.clips.pixels import Pixels, display_matrix, swaps_sides
from hardroute.runtime.clips.sampling import LONGEST_FRAME, usable_fps
from hardroute.runtime.errors import ClipError

logger = logging.getLogger(__name__)

# FFmpeg's rarely used decoders are where most of its memory errors have been found.
CODECS: Final = frozenset(
    (
        *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "vp6", "vp6f", "theora"),
        *("mpeg1video", "mpeg2video", "mpeg4", "h263", "flv", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "msmpeg4v3"),
        *("wmv1", "wmv2", "wmv3", "vc1"),
        *("mjpeg", "ffv1", "huffyuv", "ffvhuff", "dvvideo", "prores", "dnxhd"),
    )
)
# A container whose packets carry the time of decoding only; a frame's is that of the packet that brought it out.
_DECODING_TIMES: Final = frozenset(("avi", "asf"))
RE_ENCODE = "re-encode it with `ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4`"
_READ_BYTES: Final = 1 << 16
# Wider than that, a pixel's shape is a damaged header's, and not believed.
_MOST_ASPECT: Final = 16
_NO_PICTURE: Final = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


class Frame:
    """A decoded frame; converted only when it is asked for, since most are never shown.

    Attributes:
        stamp: when it starts, in seconds from any origin; NaN where its container does not say.
        duration: for how long it is shown, in seconds; 0: unknown.
    """

    __slots__ = ("_image", "_track", "duration", "interlaced", "stamp")

    def __init__(self, image: av.VideoFrame, track: Track) -> None:
        tick = image.dts if track.decoding_times else image.pts
        self.stamp = math.nan if tick is None else track.seconds(tick)
        self.duration = track.seconds(image.duration)
        self.interlaced = image.interlaced_frame
        self._image, self._track = image, track

    @property
    def aspect(self) -> float:
        """See `Shown`."""
        aspect = self._track.aspect
        return 1 / aspect if swaps_sides(display_matrix(self._image)) else aspect

    @property
    def pixels(self) -> int:
        return int(self._image.width * self._image.height)

    def rgb(self) -> np.ndarray:
        """See `Shown`."""
        self._track.limits.check_pixels(self._track.name, self._image.width, self._image.height)
        return self._track.pixels.rgb(self._image)


class Track:
    """The video track of an open container that a player would show: the first default one, or else the first.

    Attributes:
        name: for messages. fps: as stated. codec: FFmpeg's name of the decoder. time_base: seconds of a tick.
        aspect: of a pixel, before the frame is turned.
        decoding_times: its packets say when they are decoded, not when they are shown.
        promised: frames that the track's own index lists; 0 where it has none.
        damaged: packets that could not be decoded so far, or were built on such.
    """

    def __init__(self, container: Any, name: str, limits: Limits, demuxer: str) -> None:
        self.name, self.limits = name, limits
        self._container = container
        self._stream = _choose(container, name)
        self._context = context = self._stream.codec_context
        self.codec = context.codec.name
        limits.check_pixels(name, context.width, context.height)
        # One thread: the same frames of a damaged file on every machine, and memory that does not grow with the cores.
        context.thread_count = 1
        # Larger frames may come later, refused before they are allocated. Decoders count in whole blocks.
        context.options = {"max_pixels": str(limits.max_pixels * 9 // 8 + (1 << 16)), "err_detect": "explode"}
        self.pixels = Pixels(name)
        rate = self._stream.guessed_rate or self._stream.average_rate
        self.fps = usable_fps(float(rate) if rate else None)
        self.time_base: Fraction = self._stream.time_base or Fraction(1)
        self.aspect = _aspect(self._stream.sample_aspect_ratio)
        self.decoding_times = demuxer in _DECODING_TIMES
        self.promised = max(0, self._stream.frames)
        self.damaged = 0

    @property
    def extradata(self) -> bytes:
        """The codec's own header."""
        return self._context.extradata or b""

    @property
    def may_reorder(self) -> bool:
        """Whether frames are shown in another order than they are decoded in, as far as it is known by now."""
        return bool(self._context.has_b_frames)

    def seconds(self, ticks: int) -> float:
        """So many ticks of the track's clock."""
        # Of whole numbers, so it is rounded once; and Fraction is slow.
        return ticks * self.time_base.numerator / self.time_base.denominator

    def tick(self, packet: Any) -> int | None:
        """When its frame is shown, or decoded (see `decoding_times`); None: it does not say."""
        tick: int | None = packet.dts if self.decoding_times else packet.pts
        return tick

    def lasting(self, seconds: float) -> float:
        """For how long a last frame is shown: what the container says, if that can be believed."""
        return seconds if 0 < seconds <= LONGEST_FRAME else 1 / self.fps

    def promised_end(self) -> float | None:
        """When its last frame ends, in its own stamps, where it says so itself: Matroska's tag of the track.

        The length of a container is that of its longest track, so it counts only where there is one.
        """
        for tag, text in self._stream.metadata.items():
            if tag.upper().startswith("DURATION") and (found := _seconds(text)) is not None:
                return found
        alone = len(self._container.streams) == 1 and self._container.format.name.startswith("matroska")
        return self._container.duration / av.time_base if alone and self._container.duration else None

    def packets(self) -> Iterator[Any]:
        """Those of this track, in the order of decoding. What cannot be read any further ends them."""
        count = 0
        packets = self._container.demux(self._stream)
        while (packet := self._next(packets)) is not None:
            count += 1
            if count > self.limits.max_packets:
                raise ClipError(
                    f"{self.name}: more than {self.limits.max_packets:,} packets of video; "
                    "cut it into shorter videos or raise max_packets"
                )
            yield packet

    def _next(self, packets: Iterator[Any]) -> Any:
        try:
            # The empty one at the end only asks a decoder for the rest.
            return next((packet for packet in packets if packet.size), None)
        except MemoryError:
            raise
        # IndexError: PyAV at the end of a container in which a track has come up late.
        except (av.FFmpegError, ValueError, IndexError) as error:
            logger.debug("%s: reading ends: %s", self.name, type(error).__name__)
            return None

    def seek(self, tick: int) -> None:
        """The next `packets` begin at a keyframe that is not after `tick`, if the container finds one."""
        self._container.seek(tick, stream=self._stream)

    def restart(self) -> None:
        """Forgets what was decoded; the next packet given to `decode` must be a keyframe."""
        self._context.flush_buffers()

    def decode(self, packets: Iterable[Any]) -> Iterator[Frame]:
        """The frames of the packets, in the order of display.

        Nothing is shown that was built on what is missing: after a packet that cannot be decoded, or was concealed,
        the next keyframe is waited for. So it is at the beginning.
        """
        waiting = True
        for packet in packets:
            if waiting:
                if not packet.is_keyframe:
                    self.damaged += 1
                    continue
                waiting = False
            sound, images = self._feed(packet)
            for image in images:
                yield Frame(image, self)
            if not sound:
                waiting, self.damaged = True, self.damaged + 1
                self.restart()
        if not waiting:
            for image in self._feed(None)[1]:
                yield Frame(image, self)

    def _feed(self, packet: Any) -> tuple[bool, list[Any]]:
        try:
            images = self._context.decode(packet)
        except (av.FFmpegError, EOFError) as error:
            if isinstance(error, MemoryError):
                raise
            self._check_size()
            return False, []
        sound: list[Any] = []
        for image in images:
            if image.is_corrupt:
                return False, sound
            sound.append(image)
        return True, sound

    def _check_size(self) -> None:
        # A decoder that met larger frames says no more than that something is invalid.
        self.limits.check_pixels(self.name, self._context.coded_width, self._context.coded_height)


@contextlib.contextmanager
def open_file(file: BinaryIO, name: str, demuxer: str, limits: Limits) -> Iterator[Track]:
    """Open a video that is open as a file already, with this demuxer of FFmpeg's and no other; nothing else is opened.

    Raises ClipError if there is no readable video track.
    """
    file.seek(0)
    opening = container(
        _Handle(file),
        f"{name}: no video track that can be read (damaged, cut off, audio only, more than "
        f"{limits.max_tracks} tracks, or made to take much memory); copy it again or re-encode the original",
        format=demuxer,
        container_options={
            # One more, since some demuxers leave out the rest without a word.
            "max_streams": str(limits.max_tracks + 1),
            "codec_whitelist": ",".join(sorted(CODECS)),
            "protocol_whitelist": "none",
        },
        buffer_size=_READ_BYTES,
        io_open=_opens_nothing,
    )
    with opening as opened:
        if len(opened.streams) > limits.max_tracks:
            raise ClipError(f"{name}: more than {limits.max_tracks} tracks; take the one out, or raise max_tracks")
        yield Track(opened, name, limits, demuxer)


@contextlib.contextmanager
def container(target: object, refusal: str, **options: Any) -> Iterator[Any]:
    """PyAV's container with a video track, or a ClipError of this text."""
    try:
        opened = av.open(target, "r", metadata_errors="ignore", **options)
    except (av.FFmpegError, OSError, ValueError, MemoryError):  # too many tracks are ENOMEM to FFmpeg
        raise ClipError(refusal) from None
    with opened:
        if not len(opened.streams.video):
            raise ClipError(refusal)
        yield opened


class _Handle:
    """A file as PyAV wants it: reads and seeks, and nothing that would let a container close or write it."""

    name = ""

    def __init__(self, file: BinaryIO) -> None:
        self.read: Callable[[int], bytes] = file.read
        self.seek: Callable[[int, int], int] = file.seek
        self.tell: Callable[[], int] = file.tell


def _opens_nothing(*_: object) -> NoReturn:
    raise PermissionError("a video opens no other file")


def _choose(container: Any, name: str) -> Any:
    tracks = [stream for stream in container.streams.video if not stream.disposition & _NO_PICTURE]
    if not tracks:
        raise ClipError(f"{name}: no video track, only a picture; give a video file")
    track = next((stream for stream in tracks if stream.disposition & Disposition.default), tracks[0])
    codec = track.codec_context.codec.name if track.codec_context else "unknown"
    if codec not in CODECS:
        raise ClipError(f"{name}: its video codec {codec!r} is not one that is opened here; {RE_ENCODE}")
    for stream in container.streams:
        if stream is not track:
            stream.discard = Discard.all
    return track


def _aspect(ratio: Fraction | None) -> float:
    return float(ratio) if ratio and Fraction(1, _MOST_ASPECT) <= ratio <= _MOST_ASPECT else 1.0


def _seconds(text: str) -> float | None:
    """A tag such as 00:00:02.007000000."""
    try:
        hours, minutes, seconds = text.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None

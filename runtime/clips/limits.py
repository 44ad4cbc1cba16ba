"""How much of this machine one video may take."""

from __future__ import annotations

from dataclasses import dataclass

from hardroute.runtime.errors import ClipError

# Seconds that sums of stamps may be off.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Limits:
    """Bounds on one video; a video beyond one of them is refused with a `ClipError`.

    A small file can decode to gigabytes, so bytes alone say little: `max_pixels` (height times width of one
    frame) and `max_frames` bound the decoded size, `max_seconds` the playing time, `max_decode_seconds` the
    wall clock. Where the contract has a window, frames and playing time count only up to its end.

    `max_tracks` bounds the tracks of a file, `max_packets` those of its video. Two hold only in a process of its own
    (see `cage`): `max_memory`, in bytes, what decoding takes on top of the libraries, and `max_cpu_seconds`.
    """

    max_bytes: int = 2**30
    max_pixels: int = 4096 * 2304
    max_frames: int = 36_000
    max_seconds: float = 1_200.0
    max_decode_seconds: float = 60.0
    max_tracks: int = 32
    max_packets: int = 200_000
    max_memory: int = 2**30
    max_cpu_seconds: float = 60.0

    def check_pixels(self, name: object, width: int, height: int) -> None:
        """Raises ClipError, naming the video, if its frames are too large."""
        if width * height > self.max_pixels:
            raise ClipError(
                f"{name}: frames of {width}x{height} pixels, above the limit of {self.max_pixels:,}; "
                "scale the video down or raise max_pixels"
            )

    def check_length(self, name: object, frames: int, seconds: float) -> None:
        """Raises ClipError, naming the video, if it has too many frames or plays too long."""
        if frames > self.max_frames:
            raise ClipError(
                f"{name}: {frames:,} frames or more, above the limit of {self.max_frames:,}; "
                "cut it into shorter videos or raise max_frames"
            )
        if seconds > self.max_seconds + _ROUNDING:
            raise ClipError(
                f"{name}: {seconds:,.1f} seconds or more, above the limit of "
                f"{self.max_seconds:,g}; cut it into shorter videos or raise max_seconds"
            )


DEFAULT_LIMITS = Limits()

"""How much of this machine one video may take."""

from __future__ import annotations

from dataclasses import dataclass

from hardroute.runtime.errors import ClipError


@dataclass(frozen=True)
class Limits:
    """Bounds on one video; a video beyond one of them is refused with a `ClipError`.

    A small file can decode to gigabytes, so bytes alone say little: `max_pixels` (height times width of one
    frame) and `max_frames` bound the decoded size, `max_seconds` the playing time, `max_decode_seconds` the
    wall clock. Where the contract has a window, frames and playing time count only up to its end.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 4096 * 2304
    max_frames: int = 36_000
    max_seconds: float = 1_200.0
    max_decode_seconds: float = 60.0

    def check_pixels(self, name: object, width: int, height: int) -> None:
        """Raises ClipError, naming the video, if its frames are too large."""
        if width * height > self.max_pixels:
            raise ClipError(
                f"{name}: frames of {width}x{height} pixels, above the limit of {self.max_pixels:,}; "
                "scale the video down or raise max_pixels"
            )


DEFAULT_LIMITS = Limits()

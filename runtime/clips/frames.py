"""What reading a video gives, apart from who reads it: the caged process and its parent speak of it alike.

Nothing here loads FFmpeg, and so neither does a program whose videos are decoded in the cage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Shown(Protocol):
    """A frame of a source.

    Attributes:
        aspect: width of one of its pixels over the height.
    """

    @property
    def aspect(self) -> float: ...

    def rgb(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB, upright. Raises ClipError if it cannot be converted or is too large."""


@dataclass(frozen=True)
class ClipFrames:
    """The clips of a video.

    frames: (clips, T, H, W, 3) uint8 RGB. starts: (clips,) in seconds. duration: of what was read, in seconds.
    decoded, expected: frames read, and those that the track promises.
    """

    frames: np.ndarray
    starts: list[float]
    duration: float
    decoded: int
    expected: int

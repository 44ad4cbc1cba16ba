"""From what a decoder gives to upright 8-bit RGB: matrix, range, fields and orientation, or a refusal."""

from __future__ import annotations

import struct
from typing import Any, Final

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from hardroute.runtime.errors import ClipError

# H.273's numbers of matrices that are reversible but that FFmpeg's converter refuses.
_YCGCO: Final = 8
_MATRICES: Final = {
    0: "RGB",
    3: "reserved",
    8: "YCgCo",
    10: "BT.2020 constant luminance",
    11: "SMPTE 2085",
    12: "derived from the primaries",
    13: "derived from the primaries, constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
_FULL_RANGE: Final = 2


class Pixels:
    """Turns the frames of one video into upright RGB. The rule of colour stands in `ClipContract`.

    Not for several threads at a time.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reformatter = VideoReformatter()

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """(h, w, 3) uint8 RGB, upright; every pixel is of this frame. Raises ClipError if it cannot be converted."""
        try:
            # Fields of an interlaced frame are converted each by itself: their lines of chroma alternate as well.
            # One thread: the pixels are the same for any number, and a service decodes many videos side by side.
            if frame.colorspace == _YCGCO and not _is_rgb(frame):
                image = self._from_ycgco(frame)
            else:
                image = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        except (av.FFmpegError, ValueError, MemoryError) as error:
            matrix = _MATRICES.get(frame.colorspace, f"number {frame.colorspace}")
            raise ClipError(
                f"{self._name}: a frame cannot be converted to 8-bit colour ({frame.format.name}, colour matrix "
                f"{matrix}: {getattr(error, 'strerror', None) or error}); re-encode it with "
                "`ffmpeg -i INPUT -vf format=yuv420p -c:v libx264 OUTPUT.mp4`"
            ) from None
        return upright(image, display_matrix(frame))

    def _from_ycgco(self, frame: av.VideoFrame) -> np.ndarray:
        # The same matrix on both sides: only depth and chroma resolution change here.
        same = Colorspace.ITU709
        planes = self._reformatter.reformat(
            frame, format="yuv444p", src_colorspace=same, dst_colorspace=same, threads=1
        ).to_ndarray()
        luma, green, orange = planes.astype(np.float32)
        green, orange = green - 128, orange - 128
        if frame.color_range != _FULL_RANGE and not frame.format.name.startswith("yuvj"):
            luma, green, orange = (luma - 16) * (255 / 219), green * (255 / 224), orange * (255 / 224)
        # ITU-T H.273, equations for MatrixCoefficients 8.
        rgb = np.stack([luma - green + orange, luma + green, luma - green - orange], axis=-1)
        return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def _is_rgb(frame: av.VideoFrame) -> bool:
    return bool(frame.format.is_rgb)


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """(a, b, c, d) of how the frame is to be shown: its point (x, y) goes to (a x + c y, b x + d y); None: as it is."""
    try:
        data: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # another side datum, of a kind that PyAV has no name for
        turn = {90: (0, -1, 1, 0), -90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), -180: (-1, 0, 0, -1)}
        return turn.get(frame.rotation)
    if data is None or len(raw := bytes(data)) != 36:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", raw)
    return a, b, c, d


def upright(image: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    """The image as its display matrix says, in the nearest of the eight orientations of a rectangle."""
    if matrix is None or not any(matrix):
        return image
    a, b, c, d = matrix
    if turned := abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.swapaxes(0, 1), c, b
    if a < 0:
        image = image[:, ::-1]
    if d < 0:
        image = image[::-1]
    return np.ascontiguousarray(image) if turned or a < 0 or d < 0 else image


def swaps_sides(matrix: tuple[int, int, int, int] | None) -> bool:
    """Whether `upright` exchanges width and height."""
    return matrix is not None and abs(matrix[1]) + abs(matrix[2]) > abs(matrix[0]) + abs(matrix[3])

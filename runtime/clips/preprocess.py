"""From a decoded frame of any size to the contract's size, and from uint8 frames to the network's input."""

from __future__ import annotations

import cv2
import numpy as np

from hardroute.runtime.clips.contract import ClipContract


def fit_frame(frame: np.ndarray, contract: ClipContract, aspect: float = 1.0) -> np.ndarray:
    """Resize one frame (h, w, 3) uint8 to (height, width, 3) by the contract's rule; the colour order is
    kept.

    letterbox: whole frame, aspect kept, black bars; short-side-crop: aspect kept, centre crop; stretch:
    neither. `aspect` is the width of a pixel over its height: the aspect that is kept is that of the picture.
    """
    height, width = frame.shape[0], frame.shape[1] * aspect
    if contract.resize == "stretch":
        return _resize(frame, contract.height, contract.width)
    ratios = (contract.height / height, contract.width / width)
    scale = min(ratios) if contract.resize == "letterbox" else max(ratios)
    # The side that decides the scale is exact by definition; rounding must not leave it a pixel off.
    new_height = contract.height if ratios[0] == scale else max(1, round(height * scale))
    new_width = contract.width if ratios[1] == scale else max(1, round(width * scale))
    if contract.resize == "letterbox":
        top, left = (contract.height - new_height) // 2, (contract.width - new_width) // 2
        out = np.zeros((contract.height, contract.width, 3), np.uint8)
        out[top : top + new_height, left : left + new_width] = _resize(frame, new_height, new_width)
        return out
    return _crop_resize(frame, contract, new_height, new_width)


def to_planes(frames: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Picks the colours of frames (N, T, H, W, 3) uint8 apart: (N, 3, T, H, W) uint8, C-contiguous.

    Fills and returns `out` if given, which must be C-contiguous. Raises TypeError or ValueError for frames of another
    type or shape.
    """
    if frames.dtype != np.uint8:
        raise TypeError(f"frames must be uint8, got {frames.dtype}")
    if frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(f"frames must have the shape (N, T, H, W, 3), got {frames.shape}")
    n, t, h, w, channels = frames.shape
    if out is None:
        out = np.empty((n, channels, t, h, w), np.uint8)
    if frames.size:
        # OpenCV picks many bytes apart at a time, which a strided copy does not.
        for clip, planes in zip(frames.reshape(n, t * h, w, channels), out.reshape(n, channels, t * h, w), strict=True):
            cv2.split(clip, list(planes))
    return out


def to_network(frames: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Turns frames (N, T, H, W, 3) uint8 into float32 (N, 3, T, H, W) in [0, 1], C-contiguous: frames / 255.

    The only place where uint8 becomes float, unless a backend does it inside the network. Fills and returns `out` if
    given. Raises as `to_planes` does.
    """
    return np.divide(to_planes(frames), np.float32(255), out=out)


def _crop_resize(frame: np.ndarray, contract: ClipContract, new_height: int, new_width: int) -> np.ndarray:
    # Cutting the source before resizing costs less and bounds memory for extreme aspect ratios, where the
    # resized frame would be millions of pixels wide before the crop.
    height, width = frame.shape[:2]
    keep_height = min(height, max(1, round(height * contract.height / new_height)))
    keep_width = min(width, max(1, round(width * contract.width / new_width)))
    top, left = (height - keep_height) // 2, (width - keep_width) // 2
    return _resize(frame[top : top + keep_height, left : left + keep_width], contract.height, contract.width)


def _resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    if frame.shape[:2] == (height, width):
        return frame
    # Area averaging when shrinking avoids aliasing; it does not interpolate when enlarging.
    shrinks = height <= frame.shape[0] and width <= frame.shape[1]
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

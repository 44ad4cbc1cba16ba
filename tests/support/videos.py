"""Small video files made on the spot, hostile ones among them, whose every frame is known."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def grey_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames (count, height, width, 3) uint8, each of one grey, 5 levels apart: a frame tells its index."""
    levels = np.arange(count, dtype=np.uint8)[:, None, None, None] * 5
    return np.broadcast_to(levels, (count, height, width, 3)).copy()


def indices_shown(frames: np.ndarray) -> list[int]:
    """Which of `grey_frames` each frame is."""
    return [round(float(level) / 5) for level in frames[:, frames.shape[1] // 2, frames.shape[2] // 2, 0]]


def write(path: Path, frames: np.ndarray, fps: float = 10.0, codec: str = "MJPG") -> Path:
    """Write RGB frames (T, H, W, 3) uint8; the container follows from the name."""
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened(), (path, codec)
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def write_variable_rate(path: Path, frames: np.ndarray, milliseconds: Sequence[int]) -> Path:
    """Write a Matroska file whose frame i starts at milliseconds[i] (up to 32 s)."""
    assert path.suffix == ".mkv" and len(frames) == len(milliseconds)
    # At 1,000 frames a second the time of block i is i, in a byte: the clusters' own times stay below 256.
    data = bytearray(write(path, frames, fps=1000.0).read_bytes())
    # A cluster's time (E7, one byte), then a simple block: A3, its size, track 1, int16 time after the
    # cluster's, flags "key frame", and a JPEG.
    blocks = list(re.finditer(rb"(?:\xe7\x81(.))?\xa3[\x40-\x7f].\x81(..)\x80\xff\xd8", data, re.DOTALL))
    assert len(blocks) == len(frames)
    cluster = 0
    for block, milli in zip(blocks, milliseconds, strict=True):
        cluster = block[1][0] if block[1] else cluster
        data[block.start(2) : block.end(2)] = struct.pack(">h", milli - cluster)
    path.write_bytes(data)
    return path


def write_avi(path: Path, frames: Sequence[np.ndarray], fps: int = 10, promised: int | None = None) -> Path:
    """Write RGB frames (H, W, 3) uint8 of any sizes as an AVI that states the first one's size.

    promised: the number of frames that its header states, where it is to lie.
    """
    count = len(frames) if promised is None else promised
    height, width = frames[0].shape[:2]
    main = struct.pack("<14I", 10**6 // fps, 0, 0, 0, count, 0, 1, 0, width, height, 0, 0, 0, 0)
    stream = b"vidsMJPG" + struct.pack("<10I4h", 0, 0, 0, 1, fps, 0, count, 0, 0, 0, 0, 0, width, height)
    picture = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    header = _list(b"hdrl", _chunk(b"avih", main) + _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", picture)))
    chunks = b"".join(
        _chunk(b"00dc", cv2.imencode(".jpg", np.ascontiguousarray(frame[..., ::-1]))[1].tobytes()) for frame in frames
    )
    body = b"AVI " + header + _list(b"movi", chunks)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)

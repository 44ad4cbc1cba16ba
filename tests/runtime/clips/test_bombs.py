"""Small files made to take much: each is refused, and the process that reads it stays small."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hardroute.runtime.clips import ClipContract, Limits, cage, decode
from hardroute.runtime.errors import ClipError
from tests.support.numbered import Video

# Of a child: Python and its libraries take some 90 MiB.
MOST = 400
LIMITS = Limits(max_decode_seconds=20.0)


def patched(name: bytes, fields: bytes) -> bytes:
    """An MP4 with other bytes behind the name of one of its boxes."""
    data = bytearray(Video("mp4", "libx264").data())
    at = data.index(name) + 4
    data[at : at + len(fields)] = fields
    return bytes(data)


def deep(name: bytes, times: int) -> bytes:
    inner = b""
    for _ in range(times):
        inner = struct.pack(">I", len(inner) + 8) + name + inner
    return b"\0\0\0\x14ftypisom\0\0\0\0isom" + inner


def many_tracks(count: int) -> bytes:
    from io import BytesIO

    file = BytesIO()
    with av.open(file, "w", format="matroska") as container:
        streams: list[Any] = [container.add_stream("mpeg4", rate=10) for _ in range(count)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        container.start_encoding()
        for stream in streams:
            frame = av.VideoFrame(1920, 1080, "yuv420p")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return file.getvalue()


def larger_later() -> bytes:
    """A transport stream of 64x64 that becomes 4096x4096."""
    small, large = (
        Video("mpegts", "libx264", images=[np.zeros((side, side, 3), np.uint8)] * 8, options={"preset": "ultrafast"})
        for side in (64, 4096)
    )
    return small.data() + large.data()


BOMBS: dict[str, Callable[[], bytes]] = {
    "2,147,483,647 samples of a byte": lambda: patched(b"stsz", struct.pack(">III", 0, 1, 0x7FFFFFFF)),
    "samples listed without end": lambda: patched(b"stsz", struct.pack(">III", 0, 0, 0x7FFFFFFF)),
    "chunks without end": lambda: patched(b"stco", struct.pack(">II", 0, 0xFFFFFFFF)),
    "times without end": lambda: patched(b"stts", struct.pack(">IIII", 0, 1, 0xFFFFFFFF, 1)),
    "boxes in boxes": lambda: deep(b"moov", 50_000),
    "tracks": lambda: many_tracks(80),
    "larger later": larger_later,
    "a frame of 16384x16384": lambda: patched(b"avc1", b"\0" * 24 + struct.pack(">HH", 16384, 16384)),
}
# FFmpeg finds all frames nevertheless.
HARMLESS = ("chunks without end",)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb.mp4"
    path.write_bytes(BOMBS[name]())
    with cage.Cage(most=1) as own, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cage, "default", own)
        try:
            clip = decode(path, ClipContract(), LIMITS)
            assert name in HARMLESS and clip.frames_decoded == clip.frames_expected == 30
        except ClipError:
            pass
        for pid in own.pids:
            status = Path(f"/proc/{pid}/status").read_text()
            peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024
            assert peak < MOST

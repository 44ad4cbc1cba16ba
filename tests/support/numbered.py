"""Videos whose every frame has its number drawn into it, made by PyAV; and the reading back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 8
# So large that no codec at any quality loses a bit, and that chroma has no say in it.
CELL = 16
WIDTH, HEIGHT = CELL * (BITS // 2), CELL * 3


def drawn(number: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8: eight cells, black or white by the bits of the number, over a row of greys."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[2 * CELL :] = np.repeat(np.array([16, 90, 165, 235], np.uint8), CELL)[None, :, None]
    for bit in range(BITS):
        top, left = CELL * (bit // 4), CELL * (bit % 4)
        image[top : top + CELL, left : left + CELL] = 235 if number >> bit & 1 else 16
    return image


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers in frames (T, h, w, 3), of the picture's shape at any size."""
    height, width = frames.shape[1] / 3, frames.shape[2] / 4
    found = []
    for frame in frames:
        cells = [frame[int((b // 4 + 0.5) * height), int((b % 4 + 0.5) * width)].mean() > 126 for b in range(BITS)]
        found.append(sum(int(white) << bit for bit, white in enumerate(cells)))
    return found


@dataclass
class Video:
    """How a video is made.

    Attributes:
        container, codec: FFmpeg's names. rate: frames a second. pixels: FFmpeg's name of the pixel format.
        options: of the encoder. starts: of each frame, in thousandths of a second, instead of the rate.
        muxer: options of the container. matrix: display matrix, nine numbers. aspect: of a pixel. first: seconds that
        the video starts at. audio: seconds of silence beside it; 0: none.
    """

    container: str
    codec: str
    frames: int = 30
    rate: int | Fraction = 25
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    starts: Sequence[int] | None = None
    muxer: dict[str, str] = field(default_factory=dict)
    matrix: Sequence[int] | None = None
    aspect: Fraction | None = None
    first: float = 0.0
    audio: float = 0.0
    images: Sequence[np.ndarray] | None = None

    def data(self) -> bytes:
        """The file's bytes."""
        file = io.BytesIO()
        self._encode(file)
        return file.getvalue()

    def write(self, path: Path) -> Path:
        """The file, at a place where its muxer may read it again."""
        self._encode(str(path))
        return path

    def _encode(self, file: io.BytesIO | str) -> None:
        with av.open(file, "w", format=self.container, options=self.muxer) as container:
            images = self.images if self.images is not None else [drawn(number) for number in range(self.frames)]
            height, width = images[0].shape[:2]
            stream: Any = container.add_stream(self.codec, rate=self.rate, options=self.options)
            stream.width, stream.height, stream.pix_fmt = width, height, self.pixels
            if self.starts is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            if self.aspect:
                stream.codec_context.sample_aspect_ratio = self.aspect
            if self.matrix is not None:
                stream.set_display_matrix(list(self.matrix))
            sound: Any = (
                container.add_stream("mp2" if "mpeg" in self.container else "aac", rate=48_000) if self.audio else None
            )
            base = Fraction(1, 1000) if self.starts is not None else 1 / Fraction(self.rate)
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24").reformat(format=self.pixels)
                frame.time_base = base
                frame.pts = (number if self.starts is None else self.starts[number]) + round(self.first / base)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if sound is not None:
                for n in range(int(self.audio * 48_000) // 1024):
                    silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
                    silence.sample_rate, silence.pts = 48_000, n * 1024
                    container.mux(sound.encode(silence))
                container.mux(sound.encode(None))

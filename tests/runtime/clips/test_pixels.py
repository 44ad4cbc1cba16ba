"""Colour, fields, orientation and the shape of pixels against computations of their own."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hardroute.runtime.clips import ClipContract, decode
from hardroute.runtime.clips.pixels import Pixels, upright
from hardroute.runtime.clips.preprocess import fit_frame
from hardroute.runtime.errors import ClipError
from tests.support.numbered import CELL, Video, drawn

# H.273: K_R and K_B by the number of the matrix; without a statement BT.601's.
WEIGHTS = {
    1: (0.2126, 0.0722),
    2: (0.299, 0.114),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
LIMITED, FULL = 1, 2
COLOURS = [(60, 128, 128), (120, 90, 180), (180, 150, 100), (90, 128, 200), (200, 110, 140)]


def plain(colour: tuple[int, int, int], pixels: str, matrix: int, colour_range: int) -> av.VideoFrame:
    """A frame of one colour, given in 8-bit Y, Cb, Cr."""
    frame = av.VideoFrame(32, 32, pixels)
    depth = frame.format.components[0].bits
    for plane, value in zip(frame.planes, colour, strict=True):
        kind = np.uint8 if depth == 8 else np.uint16
        values = np.full(plane.buffer_size // np.dtype(kind).itemsize, value << (depth - 8), kind)
        plane.update(values.tobytes())
    frame.colorspace, frame.color_range = matrix, colour_range
    return frame


def formula(colour: tuple[int, int, int], matrix: int, colour_range: int) -> np.ndarray:
    """RGB of Y'CbCr in real numbers (H.273, 8.3)."""
    y, cb, cr = (float(value) for value in colour)
    y, cb, cr = (y - 16, cb - 128, cr - 128) if colour_range == LIMITED else (y, cb - 128, cr - 128)
    if colour_range == LIMITED:
        y, cb, cr = y * 255 / 219, cb * 255 / 224, cr * 255 / 224
    if matrix == 8:
        return np.clip([y - cb + cr, y + cb, y - cb - cr], 0, 255)
    red, blue = WEIGHTS[matrix]
    green = 1 - red - blue
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return np.clip([r, (y - red * r - blue * b) / green, b], 0, 255)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv422p", "yuv420p10le", "yuv444p12le"])
@pytest.mark.parametrize("matrix", [*WEIGHTS, 8])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_matrix_and_range_are_those_that_the_frame_states(pixels: str, matrix: int, colour_range: int) -> None:
    for colour in COLOURS:
        image = Pixels("x").rgb(plain(colour, pixels, matrix, colour_range))
        assert np.ptp(image, axis=(0, 1)).max() <= 3  # dithered from more bits
        assert np.abs(image[16, 16] - formula(colour, matrix, colour_range)).max() < 4, colour


def test_without_a_statement_the_range_is_limited_and_that_of_jpeg_full() -> None:
    for pixels, meant in (("yuv420p", LIMITED), ("yuvj420p", FULL)):
        image = Pixels("x").rgb(plain((120, 90, 180), pixels, 2, 0))
        assert np.abs(image[16, 16] - formula((120, 90, 180), 2, meant)).max() < 4


@pytest.mark.parametrize("matrix", [3, 10, 11, 12, 13, 14])
def test_a_matrix_that_is_not_converted_is_refused_by_name(matrix: int) -> None:
    with pytest.raises(
        ClipError, match=r"x: a frame cannot be converted to 8-bit colour \(yuv420p, colour matrix .+\); "
    ):
        Pixels("x").rgb(plain((120, 90, 180), "yuv420p", matrix, LIMITED))


def test_primaries_and_transfer_change_nothing() -> None:
    one, other = (plain((120, 90, 180), "yuv420p10le", 9, LIMITED) for _ in range(2))
    other.color_primaries, other.color_trc = 9, 16  # BT.2020 and PQ
    assert np.array_equal(Pixels("x").rgb(one), Pixels("x").rgb(other))


def test_what_is_converted_is_written_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two frames in turn, of sizes and kinds that share memory: nothing of one shows in the other."""
    pixels = Pixels("x")
    for colour, size in itertools.product(COLOURS, (16, 18, 34, 98)):
        for kind in ("yuv420p", "yuv422p10le", "yuv444p", "yuvj420p"):
            frame = plain(colour, kind, 1, LIMITED).reformat(width=size, height=size, format=kind)
            assert np.ptp(pixels.rgb(frame), axis=(0, 1)).max() <= 1


def woven_truth(frame: av.VideoFrame) -> np.ndarray:
    """Each field converted as a frame of its own, and their lines put together again."""
    height, width = frame.height, frame.width
    planes = frame.to_ndarray()
    luma, chroma = planes[:height], planes[height:].reshape(2, height // 2, width // 2)
    out = np.empty((height, width, 3), np.uint8)
    for parity in (0, 1):
        field = np.concatenate([luma[parity::2], chroma[:, parity::2].reshape(-1, width)])
        out[parity::2] = av.VideoFrame.from_ndarray(np.ascontiguousarray(field), "yuv420p").to_ndarray(format="rgb24")
    return out


@pytest.mark.parametrize(
    "video",
    [
        Video("mp4", "libx264", options={"x264-params": "interlaced=1"}),
        Video("mpegts", "mpeg2video", options={"flags": "+ilme+ildct"}),
    ],
    ids=["h264", "mpeg2"],
)
def test_fields_are_converted_each_by_itself(tmp_path: Path, video: Video) -> None:
    noise = np.random.default_rng(0)
    video.images = [np.repeat(noise.integers(0, 256, (64, 8, 3), np.uint8), 8, axis=1) for _ in range(12)]
    path = video.write(tmp_path / "woven")
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert frames[5].interlaced_frame
    contract = ClipContract(frames=12, height=64, width=64, resize="stretch")
    clip = decode(path, contract)
    for shown, frame in zip(clip.frames, frames, strict=True):
        np.testing.assert_array_equal(shown, woven_truth(frame))


# a b c d of the eight orientations: what numpy does to an image.
ORIENTATIONS: dict[tuple[int, int, int, int], Any] = {
    (1, 0, 0, 1): lambda x: x,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda x: x.swapaxes(0, 1),
    (0, -1, -1, 0): lambda x: np.rot90(x, 2).swapaxes(0, 1),
}


@pytest.mark.parametrize("matrix", ORIENTATIONS)
@pytest.mark.parametrize("box", ["mp4", "mov"])
def test_each_of_the_eight_orientations(tmp_path: Path, matrix: tuple[int, int, int, int], box: str) -> None:
    a, b, c, d = (65536 * value for value in matrix)
    path = Video(box, "libx264", 3, matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30), options={"bf": "0"}).write(tmp_path / "x")
    with av.open(str(path)) as container:
        raw = next(container.decode(video=0)).to_ndarray(format="rgb24")
    wanted = np.ascontiguousarray(ORIENTATIONS[matrix](raw))
    contract = ClipContract(frames=3, height=wanted.shape[0], width=wanted.shape[1], resize="letterbox")
    assert np.array_equal(decode(path, contract).frames[0], wanted)


def test_a_matrix_that_means_nothing_is_left_out() -> None:
    image = drawn(5)
    assert upright(image, (0, 0, 0, 0)) is upright(image, None) is image
    # A picture that was held askew is shown as the nearest upright one.
    assert np.array_equal(upright(image, (50_000, 30_000, -30_000, 50_000)), image)


@pytest.mark.parametrize("rule", ["letterbox", "short-side-crop", "stretch"])
@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2), Fraction(16, 11)])
def test_pixels_that_are_not_square(tmp_path: Path, rule: str, aspect: Fraction) -> None:
    """The same picture, squeezed or not, fills the same part of the clip."""
    image = drawn(0b10110100)
    path = Video("mp4", "libx264", 3, images=[image] * 3, aspect=aspect).write(tmp_path / "x.mp4")
    contract = ClipContract(frames=1, height=48, width=48, resize=rule)
    shown = decode(path, contract).frames[0].astype(int)
    wide = np.repeat(np.repeat(image, 22, axis=0), round(22 * aspect), axis=1)
    wanted = fit_frame(wide, contract).astype(int)
    assert np.abs(shown - wanted).mean() < 6
    assert ((shown.sum(2) > 12) == (wanted.sum(2) > 12)).mean() > 0.95


def test_a_turned_frame_has_its_pixels_turned_too(tmp_path: Path) -> None:
    matrix = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    path = Video("mp4", "libx264", 3, aspect=Fraction(2), matrix=matrix).write(tmp_path / "x.mp4")
    clip = decode(path, ClipContract(frames=1, height=128, width=48, resize="letterbox"))
    # 64x48 pixels of 2:1 are a picture of 128x48; a quarter of a turn makes it 48x128, which fills the clip.
    assert (clip.frames[0].max(axis=(0, 2)) > 8).all() and (clip.frames[0].max(axis=(1, 2)) > 8).all()


def test_the_default_track_is_shown(tmp_path: Path) -> None:
    for box, default in itertools.product(("mp4", "matroska"), (0, 1)):
        path = tmp_path / f"{box}{default}"
        with av.open(str(path), "w", format=box) as container:
            streams: list[Any] = [container.add_stream("libx264", rate=10) for _ in range(2)]
            for n, stream in enumerate(streams):
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
                stream.disposition = int(n == default)
            for n, stream in enumerate(streams):
                for _ in range(10):
                    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 + 150 * n, np.uint8), "rgb24")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        level = decode(path, ClipContract(frames=1, height=16, width=16)).frames[0, 8, 8].mean()
        assert abs(level - (40 + 150 * default)) < 8, (box, default)


def test_cells_are_where_they_are_drawn() -> None:
    assert drawn(1)[:CELL, :CELL].min() == 235 and drawn(2)[:CELL, :CELL].max() == 16

"""Resize rules against an independent computation, colour order, and the network's input."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardroute.runtime.clips import ClipContract, decode, to_network, to_planes
from hardroute.runtime.clips.preprocess import fit_frame
from tests.support.videos import write, write_avi


def area_weights(source: int, target: int) -> np.ndarray:
    """(target, source): what share of each target pixel every source pixel covers."""
    weights = np.zeros((target, source))
    for i in range(target):
        low, high = Fraction(i * source, target), Fraction((i + 1) * source, target)
        for j in range(source):
            covered = min(high, Fraction(j + 1)) - max(low, Fraction(j))
            weights[i, j] = max(Fraction(0), covered) / (high - low)
    return weights


def area_average(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = area_weights(frame.shape[0], height), area_weights(frame.shape[1], width)
    return np.einsum("ij,jkc,lk->ilc", rows, frame.astype(float), columns)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (61, 97), (100, 33), (40, 40)])
def test_letterbox_is_the_whole_frame_averaged_between_black_bars(size: tuple[int, int]) -> None:
    contract = ClipContract(height=24, width=32, resize="letterbox")
    frame = picture(*size)
    scale = min(Fraction(24, size[0]), Fraction(32, size[1]))
    height, width = round(size[0] * scale), round(size[1] * scale)
    top, left = (24 - height) // 2, (32 - width) // 2
    expected = np.zeros((24, 32, 3))
    expected[top : top + height, left : left + width] = area_average(frame, height, width)
    assert np.abs(fit_frame(frame, contract) - expected).max() <= 1


@pytest.mark.parametrize("size", [(48, 96), (96, 48), (60, 200), (100, 40), (36, 48)])
def test_short_side_crop_is_the_largest_centred_window_averaged(size: tuple[int, int]) -> None:
    contract = ClipContract(height=24, width=32, resize="short-side-crop")
    frame = picture(*size)
    scale = max(Fraction(24, size[0]), Fraction(32, size[1]))
    height, width = round(24 / scale), round(32 / scale)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    expected = area_average(frame[top : top + height, left : left + width], 24, 32)
    assert np.abs(fit_frame(frame, contract) - expected).max() <= 1


def test_stretch_is_the_whole_frame_averaged() -> None:
    frame = picture(60, 90)
    got = fit_frame(frame, ClipContract(height=24, width=32, resize="stretch"))
    assert np.abs(got - area_average(frame, 24, 32)).max() <= 1


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(8, 70),
    st.integers(8, 70),
    st.sampled_from(["letterbox", "short-side-crop", "stretch"]),
)
def test_every_size_fits_and_a_flat_frame_stays_flat(
    height: int, width: int, to_height: int, to_width: int, rule: str
) -> None:
    contract = ClipContract(height=to_height, width=to_width, resize=rule)
    out = fit_frame(np.full((height, width, 3), 200, np.uint8), contract)
    assert out.shape == (to_height, to_width, 3) and out.dtype == np.uint8
    levels = {0, 200} if rule == "letterbox" else {200}
    assert set(np.unique(out).tolist()) <= levels and 200 in out


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_colours_keep_their_order(tmp_path: Path, channel: int) -> None:
    frames = np.zeros((5, 48, 48, 3), np.uint8)
    frames[..., channel] = 220
    means = decode(write(tmp_path / "a.avi", frames), ClipContract(frames=3)).frames.mean((0, 1, 2))
    assert means.argmax() == channel and means[channel] > 180 and np.delete(means, channel).max() < 40


def test_a_size_that_changes_mid_stream_still_fills_the_contract(tmp_path: Path) -> None:
    frames = [picture(48, 64) for _ in range(5)] + [picture(96, 128) for _ in range(5)]
    clip = decode(write_avi(tmp_path / "a.avi", frames), ClipContract(frames=10))
    assert clip.frames.shape == (10, 48, 48, 3)


def test_to_network_is_a_division_by_255_with_channels_first() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), np.uint8)
    frames[0, 0, 0, 0] = (0, 255, 1)
    got = to_network(frames)
    assert got.dtype == np.float32 and got.shape == (2, 3, 3, 4, 5) and got.flags.c_contiguous
    assert np.array_equal(got, (frames.transpose(0, 4, 1, 2, 3) / 255).astype(np.float32))
    assert np.array_equal(np.rint(got * 255).astype(np.uint8), frames.transpose(0, 4, 1, 2, 3))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 1), (3, 1, 7, 1), (1, 5, 1, 9), (0, 3, 4, 5)])
@pytest.mark.parametrize("given", [False, True])
def test_planes_are_the_colours_apart_in_any_shape_and_memory(shape: tuple[int, ...], given: bool) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for seen in (frames, frames[::-1], frames[..., ::-1]):
        out = np.empty((shape[0], 3, *shape[1:]), np.uint8) if given else None
        planes = to_planes(seen, out)
        assert planes.dtype == np.uint8 and planes.flags.c_contiguous
        assert np.array_equal(planes, seen.transpose(0, 4, 1, 2, 3))
        assert out is None or planes is out
        out = np.empty(planes.shape, np.float32) if given else None
        assert np.array_equal(to_network(seen, out), (planes / 255).astype(np.float32))


@pytest.mark.parametrize("convert", [to_planes, to_network])
def test_floats_and_wrong_shapes_are_refused(convert: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(TypeError, match="uint8"):
        convert(np.zeros((1, 2, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="shape"):
        convert(np.zeros((1, 3, 2, 8, 8), np.uint8))


@pytest.mark.parametrize(
    "wrong", [{"frames": 0}, {"frames": 10**6}, {"height": 10**6}, {"seconds": float("nan")}, {"rsize": "x"}]
)
def test_a_contract_outside_sane_bounds_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        ClipContract.model_validate(wrong)


def test_a_contract_survives_json() -> None:
    contract = ClipContract(frames=16, height=112, width=96, seconds=2.5, resize="short-side-crop")
    assert ClipContract.model_validate_json(contract.model_dump_json()) == contract
    assert contract.shape == (3, 16, 112, 96)

"""Files kept beside the repository, each of which stands for a kind of fault: what must come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hardroute.runtime.clips import ClipContract, cage, decode
from hardroute.runtime.clips.pixels import Pixels
from hardroute.runtime.clips.preprocess import fit_frame
from hardroute.runtime.errors import ClipError

# Frames that are decoded, seconds that they last, and what the picture is done to before it is fitted.
RIGHT: dict[str, tuple[int, float]] = {
    "interlaced_h264.mp4": (30, 1.2),
    "interlaced_mpeg2.ts": (30, 1.2),
    "slide-left-00000_i.mp4": (24, 1.6),
    "slide-left-00000_p.mp4": (24, 1.6),
    "audio_0.2s_longer.webm": (50, 2.0),
    "start_at_5s.mkv": (50, 2.0),
    "trimmed_with_ss_copy.mp4": (37, 1.48),
    "hdr10_pq.mp4": (30, 1.2),
    "avchd_192.m2ts": (30, 1.2),
    "mirror_matrix.mp4": (50, 2.0),
    "sar_2to1.mp4": (30, 1.2),
    "twotracks_second_default.mp4": (50, 2.0),
}
REFUSED = {"late_8192x8192.mkv": "8192x8192 pixels", "hundred_tracks.mp4": "more than 32 tracks"}


@pytest.fixture(scope="session")
def cases(shared_data: Path) -> Path:
    folder = shared_data.parent / "cases" / "video"
    if not folder.is_dir():
        pytest.skip(f"no cases at {folder}")
    return folder


def truth(path: Path) -> list[np.ndarray]:
    """Every frame as PyAV decodes and converts it, before it is turned."""
    with av.open(str(path)) as container:
        tracks = container.streams.video
        track: Any = next((track for track in tracks if track.disposition & 1), tracks[0])
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(track)]


@pytest.mark.parametrize("name", RIGHT)
def test_what_must_be_answered(cases: Path, name: str) -> None:
    frames, seconds = RIGHT[name]
    contract = ClipContract(frames=frames, height=48, width=96 if name.startswith("sar") else 48)
    clip = decode(cases / name, contract)
    assert (clip.frames_decoded, clip.frames_expected) == (frames, frames)
    assert clip.seconds == pytest.approx(seconds, abs=1e-3)
    wanted = truth(cases / name)
    if name.startswith("mirror"):
        wanted = [np.ascontiguousarray(image[:, ::-1]) for image in wanted]
    aspect = 2.0 if name.startswith("sar") else 1.0
    for shown, image in zip(clip.frames, wanted, strict=True):
        np.testing.assert_array_equal(shown, fit_frame(image, contract, aspect))


def test_an_interlaced_copy_looks_like_its_original(cases: Path) -> None:
    contract = ClipContract(frames=24, height=64, width=64)
    woven, whole = (decode(cases / f"slide-left-00000_{kind}.mp4", contract).frames.astype(int) for kind in "ip")
    assert np.abs(woven - whole).mean() < 3


@pytest.mark.parametrize("name", REFUSED)
def test_what_must_be_refused_at_little_cost(cases: Path, name: str) -> None:
    with pytest.raises(ClipError) as caught:
        decode(cases / name, ClipContract())
    assert REFUSED[name] in str(caught.value)
    for pid in cage.default.pids:
        status = Path(f"/proc/{pid}/status").read_text()
        peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024
        assert peak < 400, f"{peak} MiB"


def test_wide_gamut_is_converted_at_the_price_of_any_other(cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asserts a time: the tags that make the converter build its tables do not reach it."""
    with av.open(str(cases / "hdr10_pq.mp4")) as container:
        frame = next(container.decode(video=0))
    assert frame.color_trc == 16
    plain = Pixels("x").rgb(frame)
    frame.color_trc = frame.color_primaries = 2
    assert np.array_equal(plain, Pixels("x").rgb(frame))

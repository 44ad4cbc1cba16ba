"""Frames chosen are the frames of the contract, in every container and codec: each has its number drawn into it."""

from __future__ import annotations

import bisect
import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardroute.runtime.clips import ClipContract, Limits, decode, decode_clips
from hardroute.runtime.clips.file_type import open_video
from hardroute.runtime.clips.scan import Reader
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams.cutting import Manner
from hardroute.runtime.streams.open_video import FileTake
from tests.support.numbered import Video, numbers

# No sampling time falls on the start of a frame, which a container rounds to its own ticks.
CONTRACT = ClipContract(frames=8, height=48, width=64, resize="stretch")
FILM, NTSC = Fraction(24_000, 1001), Fraction(30_000, 1001)
B, NO_B = {"bf": "2"}, {"bf": "0", "g": "5"}
WOVEN = {"flags": "+ilme+ildct"}

VIDEOS = {
    **{f"{box} h264": Video(box, "libx264") for box in ("mp4", "mov", "matroska", "mpegts", "avi", "flv")},
    **{f"{box} h264 without B": Video(box, "libx264", options=NO_B) for box in ("mp4", "mpegts", "avi", "flv")},
    **{f"{box} h264 29.97": Video(box, "libx264", rate=NTSC, options=B) for box in ("mp4", "matroska", "avi", "flv")},
    **{f"{box} h264 at 5 s": Video(box, "libx264", first=5.0) for box in ("mp4", "matroska", "mpegts")},
    **{f"{box} h264 and sound": Video(box, "libx264", audio=1.5) for box in ("mp4", "matroska", "mpegts")},
    "m2ts h264": Video("mpegts", "libx264", muxer={"mpegts_m2ts_mode": "1"}),
    "mp4 h264 in fragments": Video("mp4", "libx264", muxer={"movflags": "frag_keyframe+empty_moov"}),
    "mp4 h264 interlaced": Video("mp4", "libx264", options={"x264-params": "interlaced=1"}),
    "matroska h264 interlaced": Video("matroska", "libx264", options=WOVEN),
    "mpegts h264 interlaced": Video("mpegts", "libx264", options={"x264-params": "interlaced=1"}),
    "mp4 h264 open GOP": Video("mp4", "libx264", options={"x264-params": "open-gop=1:keyint=8:bframes=3"}),
    "mp4 h264 intra refresh": Video("mp4", "libx264", options={"x264-params": "intra-refresh=1:keyint=10"}),
    "mp4 h264 film": Video("mp4", "libx264", rate=FILM),
    "mp4 h264 50": Video("mp4", "libx264", rate=50),
    "mp4 h264 5": Video("mp4", "libx264", rate=5),
    "mp4 h264 4:4:4": Video("mp4", "libx264", pixels="yuv444p"),
    "mp4 h264 10 bits": Video("mp4", "libx264", pixels="yuv420p10le"),
    "mp4 hevc": Video("mp4", "libx265"),
    "mpegts hevc": Video("mpegts", "libx265"),
    "webm vp8": Video("webm", "libvpx"),
    "webm vp8 hidden frames": Video("webm", "libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "16"}),
    "webm vp9": Video("webm", "libvpx-vp9"),
    "mp4 av1": Video("mp4", "libsvtav1"),
    "mpeg mpeg1": Video("mpeg", "mpeg1video"),
    "mpeg mpeg2": Video("mpeg", "mpeg2video", options=B),
    "mpegts mpeg2 interlaced": Video("mpegts", "mpeg2video", options=WOVEN),
    "m2v mpeg2": Video("mpeg2video", "mpeg2video"),
    "mxf mpeg2": Video("mxf", "mpeg2video"),
    "avi mpeg4": Video("avi", "mpeg4"),
    "avi mpeg4 B": Video("avi", "mpeg4", options=B),
    "mp4 mpeg4 B": Video("mp4", "mpeg4", options=B),
    "3gp mpeg4": Video("3gp", "mpeg4"),
    "avi mjpeg": Video("avi", "mjpeg", pixels="yuvj420p"),
    "avi huffyuv": Video("avi", "huffyuv", pixels="yuv422p"),
    "matroska ffv1": Video("matroska", "ffv1"),
    "mov prores": Video("mov", "prores_ks", pixels="yuv422p10le"),
    "mov prores interlaced": Video("mov", "prores_ks", pixels="yuv422p10le", options={"flags": "+ildct"}),
    "asf wmv1": Video("asf", "wmv1"),
    "asf wmv2": Video("asf", "wmv2"),
    "asf msmpeg4": Video("asf", "msmpeg4"),
    "flv flv1": Video("flv", "flv"),
    "ogg vp8": Video("ogg", "libvpx"),
}


def shown(starts: list[Fraction], duration: Fraction, frames: int, begin: Fraction = Fraction(0)) -> list[int]:
    """The closed form: the last frame started by the centre of each part."""
    centres = [begin + Fraction(2 * k + 1, 2 * frames) * duration for k in range(frames)]
    return [bisect.bisect_right(starts, centre) - 1 for centre in centres]


def steady(video: Video) -> tuple[list[Fraction], Fraction]:
    step = 1 / Fraction(video.rate)
    return [n * step for n in range(video.frames)], video.frames * step


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("numbered")
    return {name: video.write(folder / name.replace(" ", "-")) for name, video in VIDEOS.items()}


def test_there_are_forty_and_more() -> None:
    assert len(VIDEOS) >= 40


@pytest.mark.parametrize("name", VIDEOS)
def test_the_frames_of_the_contract(files: dict[str, Path], name: str) -> None:
    starts, duration = steady(VIDEOS[name])
    clip = decode(files[name], CONTRACT)
    assert numbers(clip.frames) == shown(starts, duration, CONTRACT.frames)
    assert (clip.frames_decoded, clip.frames_expected) == (len(starts), len(starts))
    assert clip.seconds == pytest.approx(float(duration), abs=2e-3)


@pytest.mark.parametrize("name", VIDEOS)
def test_a_stream_shows_the_same_frames(files: dict[str, Path], name: str) -> None:
    seconds = float(steady(VIDEOS[name])[1]) / 2
    contract = CONTRACT.model_copy(update={"seconds": seconds})
    with open_video(files[name], Limits()) as source:
        manner = Manner("x", contract, Limits(), seconds, seconds, live=False)
        cuts = [step.cut for step in FileTake(source).steps(manner) if step.cut]
    np.testing.assert_array_equal(cuts[0].frames, decode(files[name], contract, trusted=True).frames)


@pytest.mark.parametrize("name", VIDEOS)
def test_sought_frames_are_those_of_reading_through_bit_for_bit(
    files: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardroute.runtime.clips.packets._SEEK_COST", 0)
    monkeypatch.setattr("hardroute.runtime.clips.packets._WORTHWHILE", 100.0)
    contract = CONTRACT.model_copy(update={"seconds": 0.15, "frames": 2})
    by_seeking, outcomes = Reader._by_seeking, []

    def noted(*args: object) -> object:
        outcomes.append(by_seeking(*args))  # type: ignore[arg-type]
        return outcomes[-1]

    monkeypatch.setattr(Reader, "_by_seeking", noted)
    held = decode_clips(files[name], contract, clips=3, trusted=True)
    # Packets that are not kept are found again through the container.
    monkeypatch.setattr("hardroute.runtime.clips.packets.HELD_BYTES", 0)
    sought = decode_clips(files[name], contract, clips=3, trusted=True)
    monkeypatch.setattr(Reader, "_by_seeking", lambda *_: None)
    through = decode_clips(files[name], contract, clips=3, trusted=True)
    for one, other, third in zip(held, sought, through, strict=True):
        np.testing.assert_array_equal(one.frames, third.frames)
        np.testing.assert_array_equal(other.frames, third.frames)
        assert (one.start, one.seconds) == (other.start, other.seconds)
        assert (one.start, one.seconds) == pytest.approx((third.start, third.seconds))
    if name in ("mp4 h264 without B", "mpegts mpeg2 interlaced", "webm vp9", "avi mjpeg", "mov prores", "mp4 h264"):
        assert all(outcomes), "the packets were sought"


@given(
    gaps=st.lists(st.integers(1, 400), min_size=1, max_size=40),
    frames=st.integers(1, 16),
    box=st.sampled_from(["mp4", "matroska"]),
    reordered=st.booleans(),
)
@settings(max_examples=40)
def test_any_variable_rate(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[int], frames: int, box: str, reordered: bool
) -> None:
    starts = [0, *itertools.accumulate(gaps)]
    options = {"bf": "2" if reordered else "0", "preset": "ultrafast"}
    video = Video(box, "libx264", len(starts), rate=1000, starts=starts, options=options)
    path = video.write(tmp_path_factory.mktemp("variable") / "video")
    # A window of its own, so that it does not matter for how long the last frame is shown.
    seconds = max(1, starts[-1])
    contract = CONTRACT.model_copy(update={"frames": frames, "seconds": seconds / 1000})
    exact = [Fraction(start) for start in starts]
    centres = [Fraction(2 * k + 1, 2 * frames) * seconds for k in range(frames)]
    if any(abs(start - centre) < Fraction(1, 50) for start, centre in itertools.product(exact, centres)):
        return  # within a container's rounding
    clip = decode(path, contract, trusted=True)
    assert numbers(clip.frames) == shown(exact, Fraction(seconds), frames)


NOISE = list(np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8))
LONG = {
    "mp4": Video("mp4", "libx264", images=NOISE, muxer={"movflags": "faststart"}),
    "fragments": Video(
        "mp4", "libx264", images=NOISE, options={"g": "5"}, muxer={"movflags": "frag_keyframe+empty_moov"}
    ),
    "mkv": Video("matroska", "libx264", images=NOISE),
    "mkv with sound": Video("matroska", "libx264", images=NOISE, audio=1.6),
    "webm": Video("webm", "libvpx-vp9", images=NOISE),
    "avi": Video("avi", "mpeg4", images=NOISE),
}


@pytest.mark.parametrize("name", ["mp4", "mkv", "mkv with sound", "webm", "avi"])
@pytest.mark.parametrize("keep", [0.5, 0.7, 0.9])
def test_a_cut_off_file_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    path = LONG[name].write(tmp_path / "cut")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ClipError, match=r"only \d+ of the 40 frames"):
        decode(path, CONTRACT)
    assert 0 < decode(path, CONTRACT, allow_short=True).frames_decoded < 40


def test_sound_that_goes_on_longer_is_no_missing_video(tmp_path: Path) -> None:
    for box in ("mp4", "matroska", "mpegts", "flv", "mov"):
        path = Video(box, "libx264", images=NOISE, audio=3.0).write(tmp_path / box)
        clip = decode(path, CONTRACT)
        assert (clip.frames_decoded, clip.frames_expected) == (40, 40), box
        assert clip.seconds == pytest.approx(1.6, abs=2e-3)

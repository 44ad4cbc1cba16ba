"""Hostile video: the outcome is frames or one ClipError line, whatever the file."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hardroute.runtime.clips import ClipContract, Limits, decode
from hardroute.runtime.clips.frame_source import open_file
from hardroute.runtime.clips.frames import ClipFrames
from hardroute.runtime.clips.pixels import Pixels
from hardroute.runtime.clips.scan import Reader
from hardroute.runtime.errors import ClipError
from tests.support.videos import grey_frames, indices_shown, write, write_avi

CONTRACT = ClipContract(frames=4, height=16, width=16)
# What the hostile files of ../shared/data/bad_inputs must come to; all others there are sound videos.
REFUSED = {
    "corrupted.mp4": "28 of the 50 frames",
    "audio_only.mp4": "no video track",
    "jpeg_named.mp4": "JPEG",
    "k400_headless.mp4": "not an AVI",
    "ucf_bitflips.avi": "8 of the 141 frames",
    "ucf_truncated_2k.avi": "no video track",
    "ucf_truncated_60pct.avi": "84 of the 141 frames",
    "zeros.avi": "zero bytes",
    "sine_mono_mp3.swf": "Flash",
}
PICTURES = (".jpg", ".png", ".gif", ".webp", ".heic", ".avif")


def refusal(path: Path, contract: ClipContract = CONTRACT, limits: Limits = Limits(), **kwargs: Any) -> str:
    with pytest.raises(ClipError) as caught:
        decode(path, contract, limits, **kwargs)
    line = str(caught.value)
    assert "\n" not in line and path.name in line and ";" in line
    return line


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write(tmp_path / "video.avi", grey_frames(20), fps=10)


def test_a_clip_says_where_it_came_from(video: Path) -> None:
    clip = decode(str(video), CONTRACT)
    assert clip.frames.shape == (4, 16, 16, 3) and clip.frames.dtype == np.uint8
    assert clip.name == "video.avi" and clip.sha256 == hashlib.sha256(video.read_bytes()).hexdigest()
    assert (clip.frames_decoded, clip.frames_expected) == (20, 20)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "empty"),
        (b"hello, this is text\n" * 50, "text"),
        ("naïve text, cut in the middle of é".encode()[:-1], "text"),
        (b"\0" * 9000, "zero bytes"),
        (b"ffconcat version 1.0\nfile video.avi\n", "playlist"),
        (b"#EXTM3U\n#EXTINF:1,\nvideo.avi\n", "playlist"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "PNG"),
        (b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 99, "without video"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 99, "HEIF"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 99, "no video track"),
        (b"\x1a\x45\xdf\xa3" + b"\xff" * 99, "no video track"),
        (bytes(range(128, 256)) * 20, "not an AVI"),
    ],
)
def test_what_is_no_video_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert reason in refusal(path)


def test_missing_folder_pipe_and_forged_names(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.mp4")
    assert "folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a regular file" in refusal(tmp_path / "pipe.mp4")
    with pytest.raises(ClipError, match="null byte"):
        decode("a\0b.mp4", CONTRACT)
    with pytest.raises(ClipError, match="not UTF-8"):
        decode(os.fsdecode(b"caf\xe9.mp4"), CONTRACT)
    with pytest.raises(ClipError) as caught:
        decode("x.mp4\nerror: forged\x1b[2J", CONTRACT)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("demuxer", ["mov", "avi", "matroska", "mpegts", "mpeg", "flv", "asf", "mxf", "ogg"])
def test_a_list_of_other_files_is_refused_by_every_demuxer_as_well(tmp_path: Path, video: Path, demuxer: str) -> None:
    path = tmp_path / "list.mp4"
    path.write_text(f"ffconcat version 1.0\nfile {video.name}\n")
    with (
        path.open("rb") as file,
        pytest.raises(ClipError, match="no video track"),
        open_file(file, "x", demuxer, Limits()),
    ):
        pass


def test_a_codec_off_the_list_is_refused_before_its_first_frame(tmp_path: Path) -> None:
    assert "codec 'snow'" in refusal(write(tmp_path / "a.avi", grey_frames(5), codec="SNOW"))


def test_several_threads_decode_side_by_side(video: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(lambda _: decode(video, CONTRACT), range(16)))
    assert all(np.array_equal(clip.frames, clips[0].frames) for clip in clips)


@pytest.mark.parametrize("keep", [0.5, 0.65, 0.8])
@pytest.mark.parametrize("name", ["a.avi", "a.mkv"])
def test_a_cut_off_file_is_noticed(tmp_path: Path, name: str, keep: float) -> None:
    path = write(tmp_path / name, grey_frames(40), fps=10)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    line = refusal(path)
    assert "of the 40 frames" in line
    clip = decode(path, CONTRACT, allow_short=True)
    assert clip.frames_decoded < clip.frames_expected == 40
    assert str(clip.frames_decoded) in line
    # What is left is the clip: its samples spread over the decoded part.
    last = indices_shown(decode(path, ClipContract(frames=4, resize="stretch"), allow_short=True).frames)[-1]
    assert last == int(clip.frames_decoded * 7 / 8)


@pytest.mark.parametrize("decoded, promised, fails", [(38, 40, False), (37, 40, True), (50, 51, False)])
def test_only_a_clear_shortfall_is_an_error(tmp_path: Path, decoded: int, promised: int, fails: bool) -> None:
    path = write_avi(tmp_path / "a.avi", list(grey_frames(decoded)), promised=promised)
    if fails:
        assert f"{decoded} of the {promised} frames" in refusal(path)
    else:
        assert decode(path, CONTRACT).frames_decoded == decoded


@pytest.mark.parametrize(
    "limits, reason",
    [
        (Limits(max_bytes=100), "max_bytes"),
        (Limits(max_pixels=64 * 48 - 1), "max_pixels"),
        (Limits(max_frames=19), "max_frames"),
        (Limits(max_seconds=1.9), "max_seconds"),
        (Limits(max_decode_seconds=0), "max_decode_seconds"),
    ],
)
def test_each_limit_is_kept(video: Path, limits: Limits, reason: str) -> None:
    assert reason in refusal(video, limits=limits)


def test_a_video_right_at_its_limits_passes(video: Path) -> None:
    limits = Limits(max_bytes=video.stat().st_size, max_pixels=64 * 48, max_frames=20, max_seconds=2.0)
    assert decode(video, CONTRACT, limits).frames_decoded == 20


@pytest.mark.parametrize("limits", [Limits(max_frames=10), Limits(max_seconds=1.0)])
def test_a_header_that_understates_does_not_lift_the_limits(tmp_path: Path, limits: Limits) -> None:
    path = write_avi(tmp_path / "a.avi", list(grey_frames(30)), promised=2)
    assert "above the limit" in refusal(path, limits=limits)


def test_limits_count_only_up_to_the_windows_end(video: Path) -> None:
    windowed = CONTRACT.model_copy(update={"seconds": 0.5})
    assert decode(video, windowed, Limits(max_frames=6, max_seconds=0.6)).frames_decoded == 5


def test_no_full_size_frame_is_kept(tmp_path: Path) -> None:
    """60 frames of 1280x720 decode to 166 MB; the reader's peak stays far below that."""
    path = write(tmp_path / "a.avi", np.zeros((60, 720, 1280, 3), np.uint8))
    code = (
        "import resource, sys; from hardroute.runtime.clips import *; from tests.support.videos import *\n"
        "import tests.support.videos\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "decode(sys.argv[1], ClipContract(seconds=0.1), trusted=True); before = peak()\n"
        "clip = decode(sys.argv[1], ClipContract(frames=60), trusted=True)\n"
        "print(clip.frames_decoded, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    decoded, grown = map(int, done.stdout.split())
    assert decoded == 60 and grown < 60


def test_a_file_that_changes_while_it_is_read_is_refused(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Reader.read

    def read_while_another_writes(self: Reader) -> ClipFrames:
        with video.open("ab") as more:
            more.write(b"\0")
        return read(self)

    monkeypatch.setattr(Reader, "read", read_while_another_writes)
    assert "changed" in refusal(video, trusted=True)


def test_what_a_name_comes_to_mean_meanwhile_is_not_read(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, before = Reader.read, decode(video, CONTRACT)

    def read_while_another_replaces(self: Reader) -> ClipFrames:
        video.unlink()
        write(video, 255 - grey_frames(20))
        return read(self)

    monkeypatch.setattr(Reader, "read", read_while_another_replaces)
    assert np.array_equal(decode(video, CONTRACT, trusted=True).frames, before.frames)


def test_large_frames_are_refused_before_one_is_converted(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pixels, "rgb", lambda *_: pytest.fail("a frame was converted"))
    assert "max_pixels" in refusal(video, limits=Limits(max_pixels=100), trusted=True)


def test_the_wall_clock_is_watched_between_packets(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(ticks))
    monkeypatch.setattr("hardroute.runtime.clips.scan.time", clock)
    assert "max_decode_seconds" in refusal(video, limits=Limits(max_decode_seconds=10), trusted=True)
    for enough in (60, float("inf")):
        assert decode(video, CONTRACT, Limits(max_decode_seconds=enough), trusted=True).frames_decoded == 20


def test_broken_bytes_never_escape_as_anything_but_a_clip_error(tmp_path: Path) -> None:
    """In a process of its own, so that a crash of a decoder would be seen, and a word on stderr as well."""
    sources = [
        write(tmp_path / "a.avi", grey_frames(12)),
        write(tmp_path / "a.mkv", grey_frames(12), codec="VP80"),
        write(tmp_path / "a.mp4", grey_frames(12), codec="mp4v"),
    ]
    rng = np.random.default_rng(0)
    paths = []
    for number in range(60):
        source = sources[number % 3]
        data = np.frombuffer(source.read_bytes(), np.uint8).copy()
        places = rng.integers(0, len(data), size=int(rng.integers(1, 30)))
        data[places] = rng.integers(0, 256, len(places))
        path = tmp_path / f"{number}{source.suffix}"
        path.write_bytes(data.tobytes())
        paths.append(path)
    code = (
        "import sys; from hardroute.runtime.clips import *; from hardroute.runtime.errors import ClipError\n"
        "for path in sys.argv[1:]:\n"
        "    try: decode(path, ClipContract(), allow_short=True, trusted=True); print('frames')\n"
        "    except ClipError as error: print('refused', error)"
    )
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV")}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, timeout=120, env=quiet
    )
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = [line.split()[0] for line in done.stdout.splitlines()]
    assert len(outcomes) == len(paths) and set(outcomes) == {"frames", "refused"}


@pytest.mark.parametrize("name", ["cv2.log", "clip.mp4"])
def test_a_refusal_is_the_only_word(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 99)
    code = (
        "import sys; from hardroute.runtime.clips import *; from hardroute.runtime.errors import ClipError\n"
        "try: decode(sys.argv[1], ClipContract())\n"
        "except ClipError: pass"
    )
    quiet = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV")}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True, env=quiet)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_bad_input_comes_to_frames_or_to_its_own_line(shared_data: Path) -> None:
    wrong = {}
    for path in sorted((shared_data / "bad_inputs").glob("*/*")):
        expected = "picture" if path.suffix in PICTURES else REFUSED.get(path.name)
        try:
            clip = decode(path, CONTRACT)
            outcome = None
            assert clip.frames.shape == (4, 16, 16, 3)
        except ClipError as error:
            outcome = str(error)
        if (outcome is None) != (expected is None) or (expected and expected not in str(outcome)):
            wrong[path.name] = outcome
    assert wrong == {}


def test_genuine_files_decode_in_full(shared_data: Path) -> None:
    shortfalls = {}
    for path in sorted((shared_data / "originals").glob("*/*.avi")):
        clip = decode(path, CONTRACT)
        shortfalls[path.name] = clip.frames_expected - clip.frames_decoded
        assert clip.frames.std() > 10
    assert len(shortfalls) == 7 and set(shortfalls.values()) == {0, 1}

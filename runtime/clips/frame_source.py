"""OpenCV's readers, opened in a cage: local files, network addresses and cameras; silent, bounded waiting."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before cv2, which this import sets up.
from hardroute.runtime.clips.cage import FILES, NETWORK, caged  # isort: skip
import cv2

from hardroute.runtime.errors import ClipError

# FFmpeg applies its codec list only while it probes; OpenCV then opens any decoder. These are the same
# codecs by the names OpenCV gives them, checked before the first frame is decoded.
_FOURCCS = frozenset(
    (
        *("H264", "AVC1", "HEVC", "HEV1", "HVC1", "AV01", "VP80", "VP90"),
        *("FMP4", "MP4V", "XVID", "DIVX", "DX50", "H263", "MP41", "MP42", "MP43", "DIV3", "MPG1", "MPG2"),
        *("MJPG", "FFV1", "HFYU", "FFVH", "DVSD", "DV25", "DV50"),
        *("APCH", "APCN", "APCS", "APCO", "AP4H", "AP4X"),
    )
)
RE_ENCODE = "re-encode it with `ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4`"
# Handing small frames to other threads costs more than it gains, and a service decodes many videos side by side.
_SMALL_PIXELS = 640 * 480
# One decoder thread per core would multiply the memory of large frames on large machines.
_MOST_THREADS = 4


@contextlib.contextmanager
def open_capture(path: Path, timeout: float) -> Iterator[cv2.VideoCapture]:
    """Open `path` with OpenCV's FFmpeg reader and release it afterwards.

    `timeout` in seconds bounds each single wait for the file. Raises ClipError if there is no readable
    video track.
    """
    # An absolute path cannot be taken for a protocol ("concat:...").
    name, threads = os.path.abspath(path), min(_MOST_THREADS, os.cpu_count() or 1)
    with _open_file(name, path, timeout, threads=1) as capture:
        width, height = stated_pixels(capture)
        if width * height <= _SMALL_PIXELS or threads == 1:
            yield capture
            return
    # The size is known only once it is open. Opening again costs less than decoding a single large frame.
    with _open_file(name, path, timeout, threads) as capture:
        yield capture


@contextlib.contextmanager
def _open_file(name: str, path: Path, timeout: float, threads: int) -> Iterator[cv2.VideoCapture]:
    settings = _settings(timeout, threads)
    with _released(lambda: cv2.VideoCapture(name, cv2.CAP_FFMPEG, settings), str(path), caged(FILES)) as capture:
        if not capture.isOpened():
            raise ClipError(
                f"{path}: no video track that can be read (damaged, cut off or audio only); "
                "copy it again or re-encode the original"
            )
        _check_codec(capture, str(path))
        yield capture


@contextlib.contextmanager
def open_url(url: str, name: str, timeout: float) -> Iterator[cv2.VideoCapture]:
    """Open a network address with OpenCV's FFmpeg reader and release it afterwards.

    Only network protocols and no playlists, so that what a server sends never names a file. `name` stands for
    the address in messages, since that may hold a password. `timeout` in seconds bounds the opening and each
    single wait for data. Until it is open, nothing else can be opened in this process. Raises ClipError.
    """
    settings = _settings(timeout, min(_MOST_THREADS, os.cpu_count() or 1))
    with _released(lambda: cv2.VideoCapture(url, cv2.CAP_FFMPEG, settings), name, caged(NETWORK)) as capture:
        if not capture.isOpened():
            raise ClipError(
                f"{name}: cannot be opened (nobody answers, no access, or no video that is read here); "
                "try the address in a player"
            )
        _check_codec(capture, name)
        yield capture


@contextlib.contextmanager
def open_camera(index: int) -> Iterator[cv2.VideoCapture]:
    """Open a camera of this machine and release it afterwards. Raises ClipError if there is none."""
    with _released(lambda: cv2.VideoCapture(index, cv2.CAP_ANY), f"camera:{index}", caged(FILES)) as capture:
        if not capture.isOpened():
            raise ClipError(
                f"camera:{index}: no such camera, or another program holds it; "
                "`v4l2-ctl --list-devices` names those there are"
            )
        yield capture


@contextlib.contextmanager
def _released(
    make: Callable[[], cv2.VideoCapture], name: str, cage: contextlib.AbstractContextManager[None]
) -> Iterator[cv2.VideoCapture]:
    try:
        with cage:
            capture = make()
    except cv2.error as error:
        raise ClipError(f"{name}: the video reader gave up ({error.err}); {RE_ENCODE}") from None
    try:
        yield capture
    finally:
        capture.release()


def _settings(timeout: float, threads: int) -> list[int]:
    milliseconds = int(max(1, min(timeout * 1000, 2**31 - 1)))
    settings = (
        (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds),
        (cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds),
        (cv2.CAP_PROP_N_THREADS, threads),
    )
    return [int(value) for pair in settings for value in pair]


def _check_codec(capture: cv2.VideoCapture, name: str) -> None:
    codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(8, "little", signed=True)[:4].decode("latin-1")
    if codec.upper() not in _FOURCCS:
        raise ClipError(f"{name}: its video codec {codec!r} is not one that is opened here; {RE_ENCODE}")


def stated_count(capture: cv2.VideoCapture) -> int:
    """The number of frames that the header promises; 0 where it does not say."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if math.isfinite(count) and 0 < count < 2**31 else 0


def stated_fps(capture: cv2.VideoCapture) -> float:
    """The header's frame rate, possibly nonsense: see `sampling.usable_fps`."""
    return float(capture.get(cv2.CAP_PROP_FPS))


def stated_pixels(capture: cv2.VideoCapture) -> tuple[int, int]:
    """(width, height) by the header."""
    return int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))

"""OpenCV's FFmpeg reader in a cage: local file, known containers and codecs, silent, bounded waiting."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path

# FFmpeg prints its own complaints, which would bury the one line that a person should read. It reads this
# once, at the first open in the process, hence before the import; a value that the user has set is kept.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

from runtime.errors import ClipError

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
# FFmpeg knows hundreds of formats. A playlist or ffconcat text would make it open further files and network
# addresses, and its rarely used decoders are where most of its memory errors have been found.
_CONTAINERS = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts"
_CODECS = (
    "h264,hevc,mpeg4,h263,msmpeg4v1,msmpeg4v2,msmpeg4,mpegvideo,mpeg1video,mpeg2video,mjpeg,vp8,libvpx,vp9,libvpx-vp9,"
    "av1,libdav1d,libaom-av1,ffv1,huffyuv,ffvhuff,prores,dvvideo"
)
_CAGE = f"protocol_whitelist;file|format_whitelist;{_CONTAINERS}|codec_whitelist;{_CODECS}"
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
_THREADS = 4


class _Cage:
    """Sets the process-wide settings that `cv2.VideoCapture` reads; puts the user's own back after.

    OpenCV takes FFmpeg's options from the environment only. Opens in several threads share one cage.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._options: str | None = None
        self._log_level = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._options = os.environ.get(_OPTIONS)
                self._log_level = cv2.utils.logging.getLogLevel()
                os.environ[_OPTIONS] = _CAGE
                # Whoever asked OpenCV to talk keeps hearing it.
                if "OPENCV_LOG_LEVEL" not in os.environ:
                    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                cv2.utils.logging.setLogLevel(self._log_level)
                if self._options is None:
                    os.environ.pop(_OPTIONS, None)
                else:
                    os.environ[_OPTIONS] = self._options


_cage = _Cage()


@contextlib.contextmanager
def open_capture(path: Path, timeout: float) -> Iterator[cv2.VideoCapture]:
    """Open `path` with OpenCV's FFmpeg reader and release it afterwards.

    `timeout` in seconds bounds each single wait for the file. Raises ClipError if there is no readable
    video track.
    """
    milliseconds = max(1, min(int(timeout * 1000), 2**31 - 1))
    settings = (
        (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds),
        (cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds),
        # One decoder thread per core multiplies the memory of large frames on large machines.
        (cv2.CAP_PROP_N_THREADS, min(_THREADS, os.cpu_count() or 1)),
    )
    try:
        with _cage:
            # An absolute path cannot be taken for a protocol ("concat:...").
            capture = cv2.VideoCapture(
                os.path.abspath(path), cv2.CAP_FFMPEG, [int(v) for pair in settings for v in pair]
            )
    except cv2.error as error:
        raise ClipError(f"{path}: the video reader gave up ({error.err}); {RE_ENCODE}") from None
    try:
        if not capture.isOpened():
            raise ClipError(
                f"{path}: no video track that can be read (damaged, cut off or audio only); "
                "copy it again or re-encode the original"
            )
        codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(8, "little", signed=True)[:4].decode("latin-1")
        if codec.upper() not in _FOURCCS:
            raise ClipError(f"{path}: its video codec {codec!r} is not one that is opened here; {RE_ENCODE}")
        yield capture
    finally:
        capture.release()


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

"""What FFmpeg may touch while OpenCV opens a video: set for the open, the user's own settings put back after.

OpenCV takes FFmpeg's options from the environment of the process only, and reads them as an open begins.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Final

# FFmpeg prints its own complaints, which would bury the one line that a person should read. It reads this
# once, at the first open in the process, hence before the import; a value that the user has set is kept.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

from runtime.errors import ClipError

_OPTIONS: Final = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
# FFmpeg knows hundreds of formats. A playlist or ffconcat text would make it open further files and network
# addresses, and its rarely used decoders are where most of its memory errors have been found.
_CONTAINERS: Final = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts"
_CODECS: Final = (
    "h264,hevc,mpeg4,h263,msmpeg4v1,msmpeg4v2,msmpeg4,mpegvideo,mpeg1video,mpeg2video,mjpeg,vp8,libvpx,vp9,libvpx-vp9,"
    "av1,libdav1d,libaom-av1,ffv1,huffyuv,ffvhuff,prores,dvvideo"
)
FILES: Final = f"protocol_whitelist;file|format_whitelist;{_CONTAINERS}|codec_whitelist;{_CODECS}"
# What a camera or server speaks, and no playlist: what comes over the network never names a file to open.
NETWORK: Final = (
    "protocol_whitelist;http,https,tls,tcp,udp,rtp,srtp,rtsp,rtsps,httpproxy"
    f"|format_whitelist;{_CONTAINERS},flv,rtsp,rtp,sdp,mpjpeg,mjpeg|codec_whitelist;{_CODECS}"
    "|rtsp_flags;prefer_tcp|allowed_media_types;video"
)
_READING: Final = 0.1
_TURN: Final = 5.0


class Cage:
    """Hands out the process-wide settings. Opens of files share them; one of a network address has a turn.

    A network open can hang for as long as its time limit, and files must not wait for that. So its options
    stand only for the tenth of a second in which it reads them. Should it be slower, it finds the options of
    files and is refused: an open never finds more allowed than it may have.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._inside = 0
        self._files = 0
        self._network: object | None = None
        self._waiting = 0
        self._options: str | None = None
        self._log_level = 0

    @contextlib.contextmanager
    def files(self) -> Iterator[None]:
        """Files may be opened, of known formats and codecs."""
        with self._turn:
            self._turn.wait_for(lambda: self._network is None and not self._waiting)
            self._enter()
            self._files += 1
        try:
            yield
        finally:
            with self._turn:
                self._files -= 1
                self._leave()
                self._turn.notify_all()

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Network addresses may be opened, and no files, by an open that begins at once.

        Raises ClipError if the files that are being opened leave it no turn for `_TURN` seconds.
        """
        mine = object()
        with self._turn:
            # Files that come now wait, or a service that always opens some would leave no gap.
            self._waiting += 1
            free = self._turn.wait_for(lambda: self._network is None and not self._files, _TURN)
            self._waiting -= 1
            self._turn.notify_all()
            if not free:
                raise ClipError("a file that is being opened holds up the network sources; check its disk")
            self._enter()
            self._network = mine
            os.environ[_OPTIONS] = NETWORK
        timer = threading.Timer(_READING, self._shut, (mine,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._shut(mine)
            with self._turn:
                self._leave()

    def _shut(self, mine: object) -> None:
        with self._turn:
            if self._network is mine:
                self._network = None
                os.environ[_OPTIONS] = FILES
                self._turn.notify_all()

    def _enter(self) -> None:
        if self._inside == 0:
            self._options = os.environ.get(_OPTIONS)
            self._log_level = cv2.utils.logging.getLogLevel()
            os.environ[_OPTIONS] = FILES
            # Whoever asked OpenCV to talk keeps hearing it.
            if "OPENCV_LOG_LEVEL" not in os.environ:
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._inside += 1

    def _leave(self) -> None:
        self._inside -= 1
        if self._inside == 0:
            cv2.utils.logging.setLogLevel(self._log_level)
            if self._options is None:
                os.environ.pop(_OPTIONS, None)
            else:
                os.environ[_OPTIONS] = self._options


CAGE: Final = Cage()

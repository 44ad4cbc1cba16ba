"""What FFmpeg may touch while OpenCV opens a video: set for the open, the user's own settings put back after.

OpenCV takes FFmpeg's options from the environment of the process only.
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


class Cage:
    """Sets the process-wide settings for as long as something is being opened. Opens with the same options share it.

    Others wait for their turn. OpenCV itself opens one video at a time in a process, however long that takes
    (https://github.com/opencv/opencv/issues/17057); so network addresses are opened in processes of their own.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._inside = 0
        self._options = ""
        self._users: str | None = None
        self._log_level = 0

    @contextlib.contextmanager
    def __call__(self, options: str) -> Iterator[None]:
        """Within the block, videos may be opened as `options` (`FILES`, `NETWORK`) say."""
        with self._turn:
            self._turn.wait_for(lambda: not self._inside or self._options == options)
            if self._inside == 0:
                self._begin(options)
            self._inside += 1
        try:
            yield
        finally:
            with self._turn:
                self._inside -= 1
                if self._inside == 0:
                    self._end()
                    self._turn.notify_all()

    def _begin(self, options: str) -> None:
        self._options, self._users = options, os.environ.get(_OPTIONS)
        self._log_level = cv2.utils.logging.getLogLevel()
        os.environ[_OPTIONS] = options
        # Whoever asked OpenCV to talk keeps hearing it.
        if "OPENCV_LOG_LEVEL" not in os.environ:
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    def _end(self) -> None:
        cv2.utils.logging.setLogLevel(self._log_level)
        if self._users is None:
            os.environ.pop(_OPTIONS, None)
        else:
            os.environ[_OPTIONS] = self._users


caged: Final = Cage()

"""Network addresses and cameras of this machine as frame sources; what a server answers names nothing else to open."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import cv2
import numpy as np

from hardroute.runtime.clips.frame_source import CODECS, RE_ENCODE, Track, container
from hardroute.runtime.clips.frames import Shown
from hardroute.runtime.clips.limits import Limits
from hardroute.runtime.errors import ClipError

# What a camera or server speaks. No playlist and no SDP: what comes over the network never names a file, an address or
# a port to open.
_PROTOCOLS: Final = "http,https,tls,tcp,rtsp,rtsps,httpproxy"
_FORMATS: Final = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,flv,asf,mxf,ogg,rtsp,mpjpeg,mjpeg"
_MOST_REDIRECTS: Final = 5
_PORTS: Final = {"http": 80, "https": 443}


class LiveFrames:
    """The frames of a network address, as they come.

    Attributes:
        fps: as stated.
        damaged: packets so far that could not be decoded, or were built on such.
    """

    def __init__(self, track: Track, now: Callable[[], float] | None, timeout: float) -> None:
        self._track, self._now, self._timeout = track, now, timeout
        self.fps = track.fps

    @property
    def damaged(self) -> int:
        return self._track.damaged

    def frames(self, alive: Callable[[], object]) -> Iterator[tuple[float, Shown]]:
        """When each starts, in seconds from any origin, and itself. `alive` is called for every packet."""
        for frame in self._track.decode(self._packets(alive)):
            yield self._now() if self._now else frame.stamp, frame

    def _packets(self, alive: Callable[[], object]) -> Iterator[Any]:
        waited = time.monotonic()
        for packet in self._track.packets():
            alive()
            waited = time.monotonic()
            yield packet
        if time.monotonic() - waited > 0.9 * self._timeout:
            raise ClipError(f"{self._track.name}: no frame for {self._timeout:g} seconds")


@contextlib.contextmanager
def open_url(url: str, name: str, timeout: float, limits: Limits, *, redirects: bool = False) -> Iterator[LiveFrames]:
    """Open a network address.

    `name` stands for the address in messages, since that may hold a password. `timeout` in seconds bounds the opening
    and each single wait for data. A server may send on to another path of its own; to another host or port only if
    `redirects`. RTSP is read over its one TCP connection. Raises ClipError.
    """
    refusal = (
        f"{name}: cannot be opened (nobody answers, no access, or no video that is read here); "
        "try the address in a player"
    )
    options = {
        "protocol_whitelist": _PROTOCOLS,
        "format_whitelist": _FORMATS,
        "codec_whitelist": ",".join(sorted(CODECS)),
        "max_streams": str(limits.max_tracks),
        "max_redirects": "0",
        "rtsp_transport": "tcp",
        "allowed_media_types": "video",
    }
    deadline = time.monotonic() + timeout
    for _ in range(_MOST_REDIRECTS + 1):
        with contextlib.ExitStack() as stack:
            try:
                opening = container(url, refusal, container_options=options, timeout=(timeout, timeout))
                opened = stack.enter_context(opening)
            except ClipError:
                url = _sent_on(url, name, max(0.1, deadline - time.monotonic()), redirects)
                if not url:
                    raise
                continue
            track = Track(opened, name, limits, opened.format.name)
            # Motion JPEG over HTTP carries no times, and FFmpeg makes some up from a guessed rate.
            clockless = opened.format.name in ("mpjpeg", "mjpeg")
            yield LiveFrames(track, time.monotonic if clockless else None, timeout)
            return
    raise ClipError(f"{name}: sent on more than {_MOST_REDIRECTS} times; give the address that it ends at")


def _sent_on(url: str, name: str, timeout: float, anywhere: bool) -> str:
    """Where an HTTP server sends whoever asks for the address, "" if it does not; ClipError if that is elsewhere.

    Asked only after FFmpeg, which follows nothing, could not open it.
    """
    parts = urlsplit(url)
    if parts.scheme.lower() not in _PORTS:
        return ""
    kind = HTTPSConnection if parts.scheme.lower() == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", parts._replace(scheme="", netloc="", fragment="").geturl() or "/")
        answer = connection.getresponse()
        location = answer.getheader("Location") if 300 <= answer.status < 400 else None
    except (OSError, HTTPException, ValueError):
        return ""
    finally:
        connection.close()
    if not location:
        return ""
    target = urlsplit(urljoin(url, location))
    if not anywhere and _place(target) != _place(parts):
        raise ClipError(f"{name}: sends on to another host or port, which is not followed; give that address itself")
    if target.scheme.lower() not in _PORTS:
        raise ClipError(f"{name}: sends on to something that is not HTTP; give that address itself")
    return target.geturl() if target.username else target._replace(netloc=_with_user(parts, target)).geturl()


def _place(parts: Any) -> tuple[str, str | None, int | None]:
    scheme = parts.scheme.lower()
    try:
        return scheme, parts.hostname, parts.port or _PORTS.get(scheme)
    except ValueError:
        return scheme, None, None


def _with_user(parts: Any, target: Any) -> str:
    # Who asked stays who asked, at the same place only.
    user, at, _ = parts.netloc.rpartition("@")
    return f"{user}{at}{target.netloc}" if _place(parts) == _place(target) else str(target.netloc)


class CameraFrames:
    """The frames of a camera, by OpenCV; they start when they arrive. See `LiveFrames`."""

    damaged = 0

    def __init__(self, capture: Any, name: str, limits: Limits) -> None:
        self._capture, self._name, self._limits = capture, name, limits
        self.fps = float(capture.get(cv2.CAP_PROP_FPS))

    def frames(self, alive: Callable[[], object]) -> Iterator[tuple[float, Shown]]:
        """See `LiveFrames`."""
        while self._capture.grab():
            alive()
            start = time.monotonic()
            yield start, _Picture(self._capture.retrieve(), self._name, self._limits)


class _Picture:
    aspect = 1.0

    def __init__(self, retrieved: tuple[bool, Any], name: str, limits: Limits) -> None:
        self._retrieved, self._name, self._limits = retrieved, name, limits

    def rgb(self) -> np.ndarray:
        sound, image = self._retrieved
        if not sound or not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
            raise ClipError(f"{self._name}: a frame cannot be converted to 8-bit colour; {RE_ENCODE}")
        self._limits.check_pixels(self._name, image.shape[1], image.shape[0])
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@contextlib.contextmanager
def open_camera(index: int, limits: Limits) -> Iterator[CameraFrames]:
    """Open a camera of this machine and release it afterwards. Raises ClipError if there is none."""
    capture = cv2.VideoCapture(index)
    try:
        if not capture.isOpened():
            raise ClipError(
                f"camera:{index}: no such camera, or another program holds it; "
                "`v4l2-ctl --list-devices` names those there are"
            )
        yield CameraFrames(capture, f"camera:{index}", limits)
    finally:
        capture.release()

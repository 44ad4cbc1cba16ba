"""Where frames come from: files, folders, cameras, network addresses, and whatever can `read()` frames."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

import numpy as np

from hardroute.runtime.clips import ClipContract
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams.open_video import FrameTake, Take, open_file_take
from hardroute.runtime.streams.reader_process import open_live_take
from hardroute.runtime.streams.settings import StreamSettings

SCHEMES = ("rtsp", "rtsps", "http", "https")
VIDEOS = frozenset((".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"))


class Source(Protocol):
    """One after the other, the videos of a source.

    Attributes:
        name: for events and the log.
        live: it has no end: a take that ends was lost, and the next one is tried after a pause.
    """

    name: str
    live: bool

    def takes(self) -> Iterator[AbstractContextManager[Take]]:
        """Each is entered, read to its end and left before the next. Entering and reading raise ClipError."""


@runtime_checkable
class FrameSource(Protocol):
    """Frames of your own: rendered, received some other way, or made up to test for hours in minutes.

    Attributes:
        fps: frames a second, used where a timestamp is of no use.

    >>> class Noise:
    ...     fps = 25.0
    ...     def __init__(self, frames: int) -> None:
    ...         self.left = frames
    ...     def read(self) -> tuple[float, np.ndarray] | None:
    ...         if not self.left:
    ...             return None
    ...         self.left -= 1
    ...         return -self.left / self.fps, np.random.default_rng(self.left).integers(0, 256, (48, 64, 3), np.uint8)
    >>> for event in engine.stream(Noise(25 * 3600)):  # an hour of video  # doctest: +SKIP
    ...     print(event.start, event.prediction.label)
    """

    fps: float

    def read(self) -> tuple[float, np.ndarray] | None:
        """The next frame: its time in seconds, from any origin, and (h, w, 3) uint8 RGB. None: there are no more.

        Raises:
            ClipError: the source is broken; the stream ends with this error.
        """


class VideoFiles:
    """Files, one after the other; each is a video of its own whose windows begin anew."""

    live = False

    def __init__(self, name: str, files: list[Path], settings: StreamSettings) -> None:
        self.name = name
        self._files, self._settings = files, settings

    def takes(self) -> Iterator[AbstractContextManager[Take]]:
        files = itertools.cycle(self._files) if self._settings.loop else self._files
        for file in files:
            yield open_file_take(file, self._settings)


class LiveSource:
    """A camera by its number, or a URL of `SCHEMES`, read in a process of its own.

    What a URL sends may be any video that a file may be, RTSP, or Motion JPEG; no playlist.
    """

    live = True

    def __init__(self, target: int | str, contract: ClipContract, settings: StreamSettings) -> None:
        self.name = public_name(target) if isinstance(target, str) else f"camera:{target}"
        self._target, self._contract, self._settings = target, contract, settings

    def takes(self) -> Iterator[AbstractContextManager[Take]]:
        while True:
            yield open_live_take(self._target, self.name, self._contract, self._settings)


class _Frames:
    live = False

    def __init__(self, frames: FrameSource, settings: StreamSettings) -> None:
        self.name = str(getattr(frames, "name", type(frames).__name__))
        self._frames, self._settings = frames, settings

    def takes(self) -> Iterator[AbstractContextManager[Take]]:
        yield contextlib.nullcontext(FrameTake(self._frames, self.name, self._settings.limits))


def open_source(spec: object, settings: StreamSettings, contract: ClipContract) -> Source:
    """What a user calls a source, as one. Nothing is opened yet.

    Args:
        spec: a file, a folder (its videos by name, without subfolders), a camera's number or "camera:0", a URL of
            `SCHEMES`, a `FrameSource`, or a `Source` of your own.
        settings: how it will be read.
        contract: what its windows are for.

    Raises:
        ClipError: there is no such file, folder or scheme, or no video in the folder.
    """
    if hasattr(spec, "takes"):
        return spec  # type: ignore[return-value]  # a protocol cannot be checked further
    if isinstance(spec, FrameSource):
        return _Frames(spec, settings)
    if isinstance(spec, int):
        return LiveSource(spec, contract, settings)
    if not isinstance(spec, str | Path):
        raise ClipError(f"source {type(spec).__name__}: not a path, a URL, a camera's number or something to read from")
    text = str(spec)
    if camera := re.fullmatch(r"camera:([0-9]{1,4})", text):
        return LiveSource(int(camera[1]), contract, settings)
    if isinstance(spec, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return LiveSource(_check_url(text), contract, settings)
    path = Path(spec)
    if path.is_dir():
        return VideoFiles(text, _videos(path), settings)
    if not path.exists():
        raise ClipError(f"{text}: no such file or folder; check the path")
    return VideoFiles(text, [path], settings)


def public_name(url: str) -> str:
    """The address without what may be secret: user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ClipError("a source's URL cannot be read; write it as rtsp://HOST:PORT/PATH") from None
    name = public_name(url)
    if parts.scheme.lower() not in SCHEMES:
        raise ClipError(f"{name}: the scheme {parts.scheme!r} is not opened here; known: {', '.join(SCHEMES)}")
    if not host or any(character.isspace() or not character.isprintable() for character in url):
        raise ClipError(f"{name}: not a URL with a host and without blanks; write it as rtsp://HOST:PORT/PATH")
    return url


def _videos(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS and path.is_file())
    except OSError as error:
        raise ClipError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    if not files:
        raise ClipError(f"{folder}: no video in it ({', '.join(sorted(VIDEOS))})")
    return files

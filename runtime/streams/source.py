"""Where frames come from: files, folders, cameras, network addresses, and whatever can `read()` frames."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from hardroute.runtime.clips import ClipContract
from hardroute.runtime.clips.file_type import open_video
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams.address import check_url, looks_like_address, showable
from hardroute.runtime.streams.open_video import FileTake, FrameSource, FrameTake, Take, WindowTake
from hardroute.runtime.streams.reader_process import IsolatedTake
from hardroute.runtime.streams.settings import StreamSettings

VIDEOS = frozenset(
    (
        *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2t", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    )
)


class Source(Protocol):
    """One after the other, the videos of a source.

    Attributes:
        name: for events and the log.
        live: it has no end: a take that ends was lost, and the next one is tried after a pause.
    """

    name: str
    live: bool

    def takes(self) -> Iterator[AbstractContextManager[Take | WindowTake]]:
        """Each is entered, read to its end and left before the next. Entering and reading raise ClipError."""


class VideoFiles:
    """Files, one after the other; each is a video of its own whose windows begin anew."""

    live = False

    def __init__(self, name: str, files: list[Path], settings: StreamSettings) -> None:
        self.name = name
        self._files, self._settings = files, settings

    def takes(self) -> Iterator[AbstractContextManager[WindowTake]]:
        files = itertools.cycle(self._files) if self._settings.loop else self._files
        for file in files:
            yield self._open(file)

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[WindowTake]:
        with open_video(path, self._settings.limits) as source:
            yield FileTake(source) if self._settings.trusted else IsolatedTake(source, self._settings.timeout)


class LiveSource:
    """A camera by its number, or a URL of `SCHEMES`, read in a process of its own.

    What a URL sends may be any video that a file may be, RTSP, or Motion JPEG; no playlist.
    """

    live = True

    def __init__(self, target: int | str, settings: StreamSettings) -> None:
        self.name = showable(target) if isinstance(target, str) else f"camera:{target}"
        self._target, self._settings = target, settings

    def takes(self) -> Iterator[AbstractContextManager[WindowTake]]:
        while True:
            yield nullcontext(IsolatedTake(self._target, self._settings.timeout, redirects=self._settings.redirects))


class _Frames:
    live = False

    def __init__(self, frames: FrameSource, settings: StreamSettings) -> None:
        self.name = str(getattr(frames, "name", type(frames).__name__))
        self._frames, self._settings = frames, settings

    def takes(self) -> Iterator[AbstractContextManager[Take]]:
        yield nullcontext(FrameTake(self._frames, self.name, self._settings.limits))


def open_source(
    spec: object,
    settings: StreamSettings,
    contract: ClipContract,
) -> Source:
    """What a user calls a source, as one. Nothing is opened yet.

    Args:
        spec: a file or its `file://` address, a folder (its videos and those of its folders, by name, without hidden
            ones), a camera's number or "camera:0", a URL of `SCHEMES`, a `FrameSource`, or a `Source` of your own.
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
        return LiveSource(spec, settings)
    if not isinstance(spec, str | Path):
        raise ClipError(f"source {type(spec).__name__}: not a path, a URL, a camera's number or something to read from")
    text = str(spec)
    if isinstance(spec, str):
        if not text.strip():
            raise ClipError("the source's name is empty; give a file, a folder, a URL or a camera")
        if camera := re.fullmatch(r"camera:([0-9]{1,4})", text):
            return LiveSource(int(camera[1]), settings)
        if text.lower().startswith("file:"):
            text = _local_path(text)
        elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
            return LiveSource(check_url(text), settings)
    path = Path(text)
    if path.is_dir():
        return VideoFiles(text, _videos(path), settings)
    if not path.exists():
        # It may be an address that was mistyped, with a password in it.
        shown = showable(text) if looks_like_address(text) else text
        raise ClipError(f"{shown}: no such file or folder; check the path")
    return VideoFiles(text, [path], settings)


def _local_path(address: str) -> str:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise ClipError(f"{showable(address)}: a file of another machine; write it as file:///PATH")
    path = unquote(parts.path)
    if "\0" in path or not path:
        raise ClipError("a file:// address without a path; write it as file:///PATH")
    return path


def _videos(folder: Path) -> list[Path]:
    """Those in it and in its folders; what a name hides (macOS writes ._clip.mp4 beside a clip) is none."""
    found: list[Path] = []

    def failed(error: OSError) -> None:
        raise ClipError(f"{error.filename or folder}: cannot be read ({error.strerror}); check its permissions")

    for place, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(place, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in VIDEOS and path.is_file()]
    if not found:
        raise ClipError(f"{folder}: no video in it ({', '.join(sorted(VIDEOS))})")
    return sorted(found)

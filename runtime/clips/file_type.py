"""What a file is, by its first bytes: only video containers on a short list ever reach a decoder."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from hardroute.runtime.clips.limits import Limits
from hardroute.runtime.errors import ClipError
from hardroute.runtime.files import NotRegularError, open_regular

HEAD_BYTES = 4096
_MEND = "give a video file, or convert it with `ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4`"
_MP4_BOXES = (b"ftyp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"sidx")
# A HEIF/AVIF picture wears the same box layout as MP4; its brand gives it away.
_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
_REFUSED = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"ID3": "an audio file",
    b"fLaC": "an audio file",
    b"FWS": "a Flash file",
    b"CWS": "a Flash file",
    b"ffconcat": "a playlist",
    b"#EXTM3U": "a playlist",
    b"PK\x03\x04": "a ZIP archive",
}


# FFmpeg's demuxer by a file's first bytes; a transport stream has its sync byte at these places.
_DEMUXERS: Final = {
    b"\x1a\x45\xdf\xa3": "matroska",
    b"\x00\x00\x01\xba": "mpeg",
    b"\x00\x00\x01\xb3": "mpegvideo",
    b"FLV\x01": "flv",
    b"\x30\x26\xb2\x75": "asf",
    b"\x06\x0e\x2b\x34": "mxf",
    b"OggS": "ogg",
}
_SYNCS: Final = ((0, 188), (4, 196), (0, 204))


@dataclass(frozen=True)
class SourceFile:
    """A file that looks like a video, and is open: what was judged is what is read, whatever its name comes to mean.

    sha256: of its bytes, hex. demuxer: FFmpeg's name of the container. file: at any position.
    """

    path: Path
    sha256: str
    demuxer: str
    file: BinaryIO
    identity: tuple[int, int]

    def check_unchanged(self) -> None:
        """Raise ClipError if the file's bytes are no longer those whose digest was taken."""
        if _identity(os.fstat(self.file.fileno())) != self.identity:
            raise ClipError(f"{self.path}: the file changed while it was read; try again when it is complete")


def check_file(path: Path, limits: Limits) -> SourceFile:
    """`open_video` for whoever wants no more than the digest: the file is closed again."""
    with open_video(path, limits) as source:
        return source


@contextlib.contextmanager
def open_video(path: Path, limits: Limits) -> Iterator[SourceFile]:
    """Open a regular file of a known video container within `limits.max_bytes`, and take its digest.

    Raises ClipError for anything missing, unreadable, empty, too large or not a video container.
    """
    if not str(path).strip() or path == Path():
        raise ClipError("the name of the video is empty; give the path of a video file")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ClipError(f"{os.fsencode(path)!r}: the file name is not UTF-8; rename it") from None
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(path))
            source = _examine(path, file, limits)
        except NotRegularError:
            raise ClipError(f"{path}: not a regular file; give the path of a video file") from None
        except FileNotFoundError:
            raise ClipError(f"{path}: no such file; check the path") from None
        except IsADirectoryError:
            raise ClipError(f"{path}: a folder, not a video file; name the files in it") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ClipError(f"{path}: cannot be read ({reason}); check path and permissions") from None
        yield source


def _examine(path: Path, file: BinaryIO, limits: Limits) -> SourceFile:
    info = os.fstat(file.fileno())
    if info.st_size == 0:
        raise ClipError(f"{path}: the file is empty; copy or download it again")
    if info.st_size > limits.max_bytes:
        raise ClipError(
            f"{path}: {info.st_size:,} bytes, above the limit of {limits.max_bytes:,}; "
            "cut it into shorter videos or raise max_bytes"
        )
    head = file.read(HEAD_BYTES)
    if refusal := refuse_head(head):
        raise ClipError(f"{path}: {refusal}")
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # typeshed wants `readinto`
    return SourceFile(path, sha256, demuxer(head), file, _identity(info))


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_size, info.st_mtime_ns


def demuxer(head: bytes) -> str:
    """FFmpeg's name of the container that a file with these first bytes is; "" for none that is opened here."""
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[4:8] in _MP4_BOXES:
        return "mov"
    if any(head[i : i + 1] == head[j : j + 1] == b"\x47" for i, j in _SYNCS):
        return "mpegts"
    return _DEMUXERS.get(head[:4], "")


def refuse_head(head: bytes) -> str | None:
    """Why a file that begins with `head` is not opened as a video, or None if it is.

    What `demuxer` names is. FFmpeg would guess from the bytes, and open pictures, playlists and lists of other files
    as well.
    """
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        return "a HEIF or AVIF picture, not a video; give a video file"
    if demuxer(head):
        return None
    if not head.strip(b"\0"):
        return "nothing but zero bytes; copy or download it again"
    for magic, kind in _REFUSED.items():
        if head.startswith(magic):
            return f"{kind}, not a video that is opened here; {_MEND}"
    if head[:4] == b"RIFF":
        return "a RIFF file without video (audio or picture); give a video file"
    if _is_text(head):
        return "text, not a video; give the path of a video file"
    return f"not an AVI, MP4/MOV, Matroska/WebM, MPEG, FLV, ASF/WMV, MXF or Ogg file; {_MEND}"


def _is_text(head: bytes) -> bool:
    # The last bytes may cut a character in two.
    text = head[: max(1, len(head) - 3)].decode("utf-8", errors="replace")
    return "\ufffd" not in text and all(c.isprintable() or c.isspace() for c in text)

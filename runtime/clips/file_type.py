"""What a file is, by its first bytes: only video containers on a short list ever reach a decoder."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hardroute.runtime.clips.limits import Limits
from hardroute.runtime.errors import ClipError

HEAD_BYTES = 4096
# Containers count frames that no decoder returns: genuine UCF-101 and HMDB-51 files are often one short.
SHORT_FRAMES, SHORT_SHARE = 2, 0.02
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
    b"OggS": "an Ogg file",
    b"FWS": "a Flash file",
    b"CWS": "a Flash file",
    b"FLV": "a Flash video",
    b"ffconcat": "a playlist",
    b"#EXTM3U": "a playlist",
    b"PK\x03\x04": "a ZIP archive",
}


@dataclass(frozen=True)
class SourceFile:
    """A file that looks like a video.

    sha256: of its bytes, hex. counts_frames: its header has a frame count, not only a length.
    """

    path: Path
    sha256: str
    counts_frames: bool
    identity: tuple[int, int, int, int]

    def check_unchanged(self) -> None:
        """Raise ClipError if the file is no longer the one whose digest was taken."""
        try:
            same = _identity(self.path.stat()) == self.identity
        except OSError:
            same = False
        if not same:
            raise ClipError(f"{self.path}: the file changed while it was read; try again when it is complete")

    def check_complete(self, decoded: int, promised: int) -> None:
        """Raise ClipError if clearly fewer frames could be decoded than the header promises."""
        if promised - decoded > max(SHORT_FRAMES, SHORT_SHARE * promised):
            raise ClipError(
                f"{self.path}: only {decoded} of the {promised} frames that its header promises could be "
                "decoded (damaged, cut off or trimmed without re-encoding); copy it again, or allow short "
                "clips to use what there is"
            )


def check_file(path: Path, limits: Limits) -> SourceFile:
    """Recognise a regular file of a known video container within `limits.max_bytes` and take its digest.

    Raises ClipError for anything missing, unreadable, empty, too large or not a video container.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ClipError(f"{os.fsencode(path)!r}: the file name is not UTF-8; rename it") from None
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            info = os.fstat(file.fileno())
            if stat.S_ISDIR(info.st_mode):
                raise IsADirectoryError
            if not stat.S_ISREG(info.st_mode):
                raise ClipError(f"{path}: not a regular file; give the path of a video file")
            if info.st_size == 0:
                raise ClipError(f"{path}: the file is empty; copy or download it again")
            if info.st_size > limits.max_bytes:
                raise ClipError(
                    f"{path}: {info.st_size:,} bytes, above the limit of {limits.max_bytes:,}; "
                    "cut it into shorter videos or raise max_bytes"
                )
            head = file.read(HEAD_BYTES)
            refusal = refuse_head(head)
            if refusal:
                raise ClipError(f"{path}: {refusal}")
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise ClipError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise ClipError(f"{path}: a folder, not a video file; name the files in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClipError(f"{path}: cannot be read ({reason}); check path and permissions") from None
    return SourceFile(path, sha256, head[:4] == b"RIFF" or head[4:8] in _MP4_BOXES, _identity(info))


def _identity(info: os.stat_result) -> tuple[int, int, int, int]:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _open_without_waiting(path: str, flags: int) -> int:
    # A named pipe called x.mp4 must be recognised, not waited for.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def refuse_head(head: bytes) -> str | None:
    """Why a file that begins with `head` is not opened as a video, or None if it is.

    AVI, MP4/MOV, Matroska/WebM and MPEG are. FFmpeg would guess from the bytes, and open pictures, playlists
    and lists of other files as well.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return None
    if head[4:8] in _MP4_BOXES:
        if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
            return "a HEIF or AVIF picture, not a video; give a video file"
        return None
    if head[:4] in (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba"):
        return None
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
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
    return f"not an AVI, MP4/MOV, Matroska/WebM or MPEG file; {_MEND}"


def _is_text(head: bytes) -> bool:
    # The last bytes may cut a character in two.
    text = head[: max(1, len(head) - 3)].decode("utf-8", errors="replace")
    return "\ufffd" not in text and all(c.isprintable() or c.isspace() for c in text)

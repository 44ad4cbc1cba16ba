"""Decoded clips on disk, so that training on a set decodes it once."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from hardroute.runtime import clips
from hardroute.runtime.clips.contract import ClipContract
from hardroute.runtime.clips.decoding import DecodedClip, decode_clips
from hardroute.runtime.clips.file_type import check_file
from hardroute.runtime.clips.limits import DEFAULT_LIMITS, Limits
from hardroute.runtime.errors import DataError


class ClipCache:
    """Decodes each video once per contract and number of clips.

    Clips are found by the video's bytes, the contract, their number, the decoder's code, and the versions of PyAV
    (with its FFmpeg) and OpenCV, so that no change of these meets an old clip; a renamed or copied video meets its
    own. Clips appear whole or not at all, whoever is killed and however many write at once; those damaged later are
    decoded anew. The audit does without: it judges what the decoder gives now.

    Args:
        root: folder of the cache; made when the first clip is kept.

    >>> frames = ClipCache("cache").decode("clip.mp4", ClipContract(frames=12)).frames  # doctest: +SKIP
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def decode(self, path: str | Path, contract: ClipContract, limits: Limits = DEFAULT_LIMITS) -> DecodedClip:
        """As `runtime.clips.decoding`. Raises ClipError as that, and DataError if the cache cannot be written."""
        return self.decode_clips(path, contract, limits)[0]

    def decode_clips(
        self, path: str | Path, contract: ClipContract, limits: Limits = DEFAULT_LIMITS, *, clips: int = 1
    ) -> tuple[DecodedClip, ...]:
        """As `hardroute.runtime.clips.decode_clips`; raises as `decode`. So many clips of a video are kept together."""
        path = Path(path)
        sha256 = check_file(path, limits).sha256
        words = [sha256, contract.model_dump_json(), str(clips), cv2.__version__, av.__version__, _code()]
        key = hashlib.sha256("\n".join(words).encode()).hexdigest()
        place = self.root / key[:2] / f"{key}.npz"
        found = _read(place, contract, clips)
        if found is None:
            made = decode_clips(path, contract, limits, clips=clips)
            _write(place, made)
            return made
        return tuple(DecodedClip(frames=own, name=path.name, sha256=sha256, **told) for own, told in found)


def _read(place: Path, contract: ClipContract, clips: int) -> list[tuple[np.ndarray, dict[str, Any]]] | None:
    """None where there are no such clips, or not whole ones: a zip archive carries a checksum of each member."""
    try:
        with zipfile.ZipFile(place) as archive:
            with archive.open("frames.npy") as file:
                frames = np.lib.format.read_array(file, allow_pickle=False)
                file.read()  # to the end, where the checksum is compared
            told = json.loads(archive.read("clips.json"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    shape = (clips, contract.frames, contract.height, contract.width, 3)
    whole = frames.shape == shape and frames.dtype == np.uint8 and len(told) == clips
    return list(zip(frames, told, strict=True)) if whole else None


def _write(place: Path, clips: tuple[DecodedClip, ...]) -> None:
    names = ("frames_decoded", "frames_expected", "seconds", "start")
    told = [{name: getattr(clip, name) for name in names} for clip in clips]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".", delete=False) as file:
            try:
                with zipfile.ZipFile(file, "w") as archive:
                    with archive.open("frames.npy", "w") as member:
                        np.lib.format.write_array(member, np.stack([clip.frames for clip in clips]), allow_pickle=False)
                    archive.writestr("clips.json", json.dumps(told))
                file.close()
                os.replace(file.name, place)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise DataError(
            f"{place.parent}: the clip cache cannot be written ({error.strerror}); make room, or set HARDROUTE_CACHE"
        ) from None


@functools.cache
def _code() -> str:
    """Digest of the modules that turn a file into a clip."""
    digest = hashlib.sha256()
    for path in sorted(Path(clips.__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()

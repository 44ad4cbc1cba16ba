"""Decoded clips on disk, so that training on a set decodes it once."""

from __future__ import annotations

import functools
import hashlib
import logging
import zipfile
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter

from hardroute.runtime import clips
from hardroute.runtime.clips.contract import ClipContract
from hardroute.runtime.clips.decoding import DecodedClip, decode_clips
from hardroute.runtime.clips.file_type import check_file
from hardroute.runtime.clips.limits import DEFAULT_LIMITS, Limits
from hardroute.runtime.errors import DataError
from hardroute.runtime.files import open_regular, replacing

logger = logging.getLogger(__name__)


class _Told(BaseModel):
    """What a `DecodedClip` holds besides its frames and its file."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)

    frames_decoded: int
    frames_expected: int
    seconds: float
    start: float


_TOLD = TypeAdapter(list[_Told])


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
        words = [sha256, contract.model_dump_json(), str(clips), cv2.__version__, version("av"), _code()]
        key = hashlib.sha256("\n".join(words).encode()).hexdigest()
        place = self.root / key[:2] / f"{key}.npz"
        found = _read(place, contract, clips)
        if found is None:
            made = decode_clips(path, contract, limits, clips=clips)
            _write(place, made)
            return made
        return tuple(
            DecodedClip(
                own, path.name, sha256, told.frames_decoded, told.frames_expected, told.seconds, start=told.start
            )
            for own, told in found
        )


def _read(place: Path, contract: ClipContract, clips: int) -> list[tuple[np.ndarray, _Told]] | None:
    """None where there are no such clips, or not whole ones: a zip archive carries a checksum of each member."""
    try:
        with open_regular(place) as kept, zipfile.ZipFile(kept) as archive:
            with archive.open("frames.npy") as file:
                frames = np.lib.format.read_array(file, allow_pickle=False)
                file.read()  # to the end, where the checksum is compared
            told = _TOLD.validate_json(archive.read("clips.json"))
        shape = (clips, contract.frames, contract.height, contract.width, 3)
        if frames.shape != shape or frames.dtype != np.uint8 or len(told) != clips:
            raise ValueError(f"{frames.dtype} {frames.shape} of {len(told)} clips")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged and its video decoded anew: %s", place, error)
        return None
    return list(zip(frames, told, strict=True))


def _write(place: Path, clips: tuple[DecodedClip, ...]) -> None:
    told = _TOLD.dump_json([_Told.model_validate(clip) for clip in clips])
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as file, zipfile.ZipFile(file, "w") as archive:
            with archive.open("frames.npy", "w") as member:
                np.lib.format.write_array(member, np.stack([clip.frames for clip in clips]), allow_pickle=False)
            archive.writestr("clips.json", told)
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

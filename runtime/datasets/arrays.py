"""A labelled set decoded into memory."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from hardroute.runtime.clips.contract import ClipContract
from hardroute.runtime.clips.decoding import DecodedClip, decode_clips
from hardroute.runtime.clips.limits import DEFAULT_LIMITS, Limits
from hardroute.runtime.datasets.dataset import ClipSet
from hardroute.runtime.datasets.manifest_csv import MANIFEST
from hardroute.runtime.errors import ClipError, DataError


class Decoder(Protocol):
    """`decode_clips`, or that of a `ClipCache`."""

    def __call__(
        self, path: Path, contract: ClipContract, limits: Limits, *, clips: int
    ) -> tuple[DecodedClip, ...]: ...


@dataclass(frozen=True)
class ClipArrays:
    """A decoded set: frames (N, T, H, W, 3) uint8 RGB, labels (N,) int64 into `classes`, files and their
    SHA-256.

    per_video: so many clips in a row are of one video, in order of time.
    """

    frames: np.ndarray
    labels: np.ndarray
    files: tuple[str, ...]
    sha256: tuple[str, ...]
    classes: tuple[str, ...]
    per_video: int = 1

    @property
    def videos(self) -> int:
        return len(self.labels) // self.per_video

    @functools.cached_property  # asked by several, and hashing reads all frames
    def frames_sha256(self) -> tuple[str, ...]:
        """SHA-256 of each clip's frames, hex: equal for copies of a video, whatever they are called or wrapped in."""
        return tuple(hashlib.sha256(frames.tobytes()).hexdigest() for frames in self.frames)


def load_clips(
    clip_set: ClipSet,
    contract: ClipContract,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int, int], None] | None = None,
    decoder: Decoder = decode_clips,
    per_video: int = 1,
) -> ClipArrays:
    """Decode every video of a set, `per_video` clips of each. `progress(done, total)` is called after each video.

    Raises DataError on a broken video, or where the clips are more than this machine's memory.
    """
    total = len(clip_set)
    if not total:
        raise DataError(f"{clip_set.name}: no clips; choose another split")
    frames = _room(clip_set.name, (total * per_video, contract.frames, contract.height, contract.width, 3))
    digests = []
    for i, row in enumerate(clip_set.rows):
        try:
            clips = decoder(row.path, contract, limits, clips=per_video)
        except ClipError as error:
            raise DataError(f"{clip_set.name}: {error} (or take its row out of {MANIFEST})") from None
        for place, clip in enumerate(clips, start=i * per_video):
            frames[place] = clip.frames
        digests.append(clips[0].sha256)
        if progress:
            progress(i + 1, total)
    index = {label: i for i, label in enumerate(clip_set.classes)}
    rows = [row for row in clip_set.rows for _ in range(per_video)]
    return ClipArrays(
        frames,
        np.array([index[row.label] for row in rows], np.int64),
        tuple(row.file for row in rows),
        tuple(digest for digest in digests for _ in range(per_video)),
        clip_set.classes,
        per_video,
    )


def _room(name: str, shape: tuple[int, ...]) -> np.ndarray:
    # Memory is granted on trust and taken as it is filled: without this, hours of decoding end in a kill.
    needed = np.prod(shape, dtype=float)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise DataError(
            f"{name}: {shape[0]:,} clips take {needed / 2**30:,.1f} GiB, and this machine has {there / 2**30:,.1f}; "
            "take fewer clips of a video, fewer frames or a smaller size"
        )
    return np.empty(shape, np.uint8)

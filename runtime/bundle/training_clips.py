"""What a bundle was trained on, as digests: nothing can be certified on clips that a network has seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hardroute.runtime.errors import BundleError

TRAINING_CLIPS: Final = "training-clips"
_LINE: Final = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{64})\n")


@dataclass(frozen=True)
class TrainingClips:
    """The training clips of a bundle.

    Attributes:
        files: SHA-256 of the videos' bytes, hex: finds a copy under another name.
        frames: SHA-256 of the clips' frames under the bundle's contract, hex: finds a copy in another container.
    """

    files: frozenset[str]
    frames: frozenset[str]

    @staticmethod
    def to_bytes(clips: Iterable[tuple[str, str]]) -> bytes:
        """The file: a line "<digest of the video> <digest of the frames>" for each clip, sorted."""
        return "".join(f"{video} {frames}\n" for video, frames in sorted(set(clips))).encode()

    @classmethod
    def parse(cls, data: bytes) -> TrainingClips:
        """Reads the file. Raises BundleError for anything but its lines."""
        lines = data.splitlines(keepends=True)
        found = [_LINE.fullmatch(line) for line in lines]
        for number, line in enumerate(found, start=1):
            if line is None:
                raise BundleError(
                    f"{TRAINING_CLIPS} line {number}: not two digests of 64 hex digits; export the bundle again"
                )
        pairs = [(line[1].decode(), line[2].decode()) for line in found if line]
        return cls(frozenset(video for video, _ in pairs), frozenset(frames for _, frames in pairs))

    def seen(self, files: Sequence[str], frames: Sequence[str]) -> list[int]:
        """Places of those clips, by their digests, that are among these."""
        pairs = enumerate(zip(files, frames, strict=True))
        return [place for place, (video, shown) in pairs if video in self.files or shown in self.frames]

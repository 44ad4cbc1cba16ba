"""The one decode: a video file becomes a clip of the contract's shape, or one line that says why not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hardroute.runtime.clips import sampling
from hardroute.runtime.clips.contract import ClipContract
from hardroute.runtime.clips.file_type import check_file
from hardroute.runtime.clips.frame_source import RE_ENCODE
from hardroute.runtime.clips.limits import DEFAULT_LIMITS, Limits
from hardroute.runtime.clips.scan import Reader
from hardroute.runtime.errors import ClipError


@dataclass(frozen=True)
class DecodedClip:
    """A clip in the contract's shape and where it came from.

    frames: (T, H, W, 3) uint8 RGB. name: the file's name. sha256: of the file's bytes, hex. frames_decoded
    and frames_expected: of what was read, expected by the header (0: it does not say). seconds: playing time
    decoded. start: where the clip's window begins, in seconds.
    """

    frames: np.ndarray
    name: str
    sha256: str
    frames_decoded: int
    frames_expected: int
    seconds: float
    start: float = 0.0


def decode(
    path: str | Path, contract: ClipContract, limits: Limits = DEFAULT_LIMITS, *, allow_short: bool = False
) -> DecodedClip:
    """The one clip that the contract makes of a video: its first window. See `decode_clips`.

    >>> clip = decode("clip.mp4", ClipContract(frames=12, height=48, width=48))  # doctest: +SKIP
    >>> clip.frames.shape  # doctest: +SKIP
    (12, 48, 48, 3)
    """
    return decode_clips(path, contract, limits, allow_short=allow_short)[0]


def decode_clips(
    path: str | Path,
    contract: ClipContract,
    limits: Limits = DEFAULT_LIMITS,
    *,
    clips: int = 1,
    allow_short: bool = False,
) -> tuple[DecodedClip, ...]:
    """Decode the frames on display at the contract's sampling times, in `clips` windows spread over the video.

    A video that yields clearly fewer frames than its header promises (damaged or cut off) is an error unless
    `allow_short`; then the clips span what could be decoded. The video is read once; one clip needs no more of it than
    its window. Memory is bounded by a few full-size frames plus a few times the clips themselves, whatever the video.
    Raises ClipError: one line with the file, the reason and the mend.
    """
    path, spread = Path(path), sampling.Spread(contract.seconds, clips)
    file = check_file(path, limits)
    reader = Reader(file, contract, limits, spread)
    scan = reader.run(None)
    expected = reader.expected(scan)
    if not allow_short:
        file.check_complete(len(scan.starts), expected)
    indices = sampling.frames_on_display(scan.starts, spread.times(contract.frames, scan.duration))
    wanted = set(indices.flatten().tolist())
    if not wanted <= scan.kept.keys():
        # The header was wrong about length or rate, so the first pass did not keep the right frames.
        scan = reader.run(wanted)
        if not wanted <= scan.kept.keys():
            raise ClipError(f"{path}: decodes differently each time; {RE_ENCODE}")
    file.check_unchanged()
    return tuple(
        DecodedClip(
            frames=np.stack([scan.kept[i] for i in shown]),
            name=path.name,
            sha256=file.sha256,
            frames_decoded=len(scan.starts),
            frames_expected=expected,
            seconds=scan.duration,
            start=start,
        )
        for shown, start in zip(indices.tolist(), spread.starts(scan.duration).tolist(), strict=True)
    )

"""The one decode: a video file becomes a clip of the contract's shape, or one line that says why not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hardroute.runtime.clips import cage, sampling
from hardroute.runtime.clips.contract import ClipContract
from hardroute.runtime.clips.file_type import open_video
from hardroute.runtime.clips.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class DecodedClip:
    """A clip in the contract's shape and where it came from.

    frames: (T, H, W, 3) uint8 RGB. name: the file's name. sha256: of the file's bytes, hex. frames_decoded
    and frames_expected: of what was read, expected by the video track itself (where few frames of a long video are
    decoded, its packets are counted). seconds: playing time. start: where the clip's window begins, in seconds.
    """

    frames: np.ndarray
    name: str
    sha256: str
    frames_decoded: int
    frames_expected: int
    seconds: float
    start: float = 0.0


def decode(
    path: str | Path,
    contract: ClipContract,
    limits: Limits = DEFAULT_LIMITS,
    *,
    allow_short: bool = False,
    trusted: bool = False,
) -> DecodedClip:
    """The one clip that the contract makes of a video: its first window. See `decode_clips`.

    >>> clip = decode("clip.mp4", ClipContract(frames=12, height=48, width=48))  # doctest: +SKIP
    >>> clip.frames.shape  # doctest: +SKIP
    (12, 48, 48, 3)
    """
    return decode_clips(path, contract, limits, allow_short=allow_short, trusted=trusted)[0]


def decode_clips(
    path: str | Path,
    contract: ClipContract,
    limits: Limits = DEFAULT_LIMITS,
    *,
    clips: int = 1,
    allow_short: bool = False,
    trusted: bool = False,
) -> tuple[DecodedClip, ...]:
    """Decode the frames on display at the contract's sampling times, in `clips` windows spread over the video.

    A video of which clearly fewer frames can be decoded than its video track holds (damaged or cut off) is an error
    unless `allow_short`; then the clips span what could be decoded. Of a long video only what is shown is decoded,
    from the keyframes before; one clip needs no more of it than its window. Memory is bounded by a few full-size
    frames plus a few times the clips themselves, whatever the video.
    Raises ClipError: one line with the file, the reason and the mend.

    Args:
        trusted: decode in this very process, without the limits on memory and CPU time, and with all that this
            process may do within reach of a decoder's bugs: for files whose maker you trust. Otherwise it is done in
            the `cage`.
    """
    path, spread = Path(path), sampling.Spread(contract.seconds, clips)
    with open_video(path, limits) as source:
        task = cage.Task(str(path), source.demuxer, contract, limits, spread, allow_short)
        if trusted:
            from hardroute.runtime.clips.scan import Reader  # and FFmpeg, which the cage keeps out of this process

            read = Reader(source.file, **vars(task)).read()
        else:
            read = cage.default.decode(source, task)
        source.check_unchanged()
    return tuple(
        DecodedClip(
            frames=frames,
            name=path.name,
            sha256=source.sha256,
            frames_decoded=read.decoded,
            frames_expected=read.expected,
            seconds=read.duration,
            start=start,
        )
        for frames, start in zip(read.frames, read.starts, strict=True)
    )

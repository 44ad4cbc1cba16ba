"""The one decode: a video file becomes a clip of the contract's shape, or one line that says why not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.clips import sampling
from runtime.clips.capture import RE_ENCODE
from runtime.clips.container import check_file
from runtime.clips.contract import ClipContract
from runtime.clips.limits import DEFAULT_LIMITS, Limits
from runtime.clips.scan import Reader
from runtime.errors import ClipError


@dataclass(frozen=True)
class DecodedClip:
    """A clip in the contract's shape and where it came from.

    frames: (T, H, W, 3) uint8 RGB. name: the file's name. sha256: of the file's bytes, hex. frames_decoded
    and frames_expected: in the window, expected by the header (0: it does not say). seconds: playing time
    decoded.
    """

    frames: np.ndarray
    name: str
    sha256: str
    frames_decoded: int
    frames_expected: int
    seconds: float


def decode(
    path: str | Path, contract: ClipContract, limits: Limits = DEFAULT_LIMITS, *, allow_short: bool = False
) -> DecodedClip:
    """Decode the frames on display at the contract's sampling times.

    A video that yields clearly fewer frames than its header promises (damaged or cut off) is an error unless
    `allow_short`; then the clip spans what could be decoded. Memory is bounded by a few full-size frames
    plus a few times the clip itself, whatever the video. Raises ClipError: one line with the file, the
    reason and the mend.

    >>> clip = decode("clip.mp4", ClipContract(frames=12, height=48, width=48))  # doctest: +SKIP
    >>> clip.frames.shape  # doctest: +SKIP
    (12, 48, 48, 3)
    """
    path = Path(path)
    file = check_file(path, limits)
    reader = Reader(file, contract, limits)
    scan = reader.run(None)
    expected = reader.expected(scan)
    if not allow_short:
        file.check_complete(len(scan.starts), expected)
    indices = sampling.frames_on_display(
        scan.starts, sampling.sample_times(contract.frames, contract.seconds or scan.duration)
    )
    wanted = set(indices.tolist())
    if not wanted <= scan.kept.keys():
        # The header was wrong about length or rate, so the first pass did not keep the right frames.
        scan = reader.run(wanted)
        if not wanted <= scan.kept.keys():
            raise ClipError(f"{path}: decodes differently each time; {RE_ENCODE}")
    file.check_unchanged()
    return DecodedClip(
        frames=np.stack([scan.kept[i] for i in indices.tolist()]),
        name=path.name,
        sha256=file.sha256,
        frames_decoded=len(scan.starts),
        frames_expected=expected,
        seconds=scan.duration,
    )

"""The `motion` set: clips of moving textured shapes, rendered from a seed into real video files.

Nothing is downloaded and nothing is left to chance: the same spec gives the same frames, and the clips of a
smaller set are the first ones of a larger set of the same seed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hardroute.runtime.datasets import motion_scene
from hardroute.runtime.datasets.manifest_csv import MANIFEST, write_manifest
from hardroute.runtime.errors import DataError
from hardroute.runtime.files import new_folder

# Part of the cache key: raise it whenever the same spec would give other frames.
GENERATOR = 3
MAX_PER_CLASS = 20_000
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class MotionSpec:
    """Which clips: the seed and the number of clips per class in each split."""

    seed: int = 0
    train: int = 250
    val: int = 25
    test: int = 40

    @staticmethod
    def parse(text: str) -> MotionSpec:
        """Read "motion", or after a colon what differs from the default.

        >>> MotionSpec.parse("motion:test=5")
        MotionSpec(seed=0, train=250, val=25, test=5)
        """
        head, _, settings = text.partition(":")
        values: dict[str, int] = {}
        for part in filter(None, (p.strip() for p in settings.split(","))):
            key, _, value = (p.strip() for p in part.partition("="))
            if key not in ("seed", *_SPLITS) or key in values:
                raise DataError(f"{text}: {part!r} is not understood; write {MotionSpec().text}")
            if not (value.isascii() and value.isdigit()):
                raise DataError(f"{text}: {key} must be a whole number from 0, not {value!r}")
            values[key] = int(value)
        if head.strip() != "motion":
            raise DataError(f"{text}: not a motion set; write {MotionSpec().text}")
        spec = MotionSpec(**values)
        if max(spec.counts.values()) > MAX_PER_CLASS:
            raise DataError(f"{text}: at most {MAX_PER_CLASS:,} clips per class and split")
        if not any(spec.counts.values()):
            raise DataError(f"{text}: no clips; give train, val or test a number above 0")
        return spec

    @property
    def counts(self) -> dict[str, int]:
        """Clips per class, by split."""
        return {split: getattr(self, split) for split in _SPLITS}

    @property
    def text(self) -> str:
        """What `parse` reads as this."""
        counts = ",".join(f"{split}={n}" for split, n in self.counts.items())
        return f"motion:seed={self.seed},{counts}"

    @property
    def key(self) -> str:
        """A folder name that tells this spec and generator from any other."""
        counts = "-".join(f"{split}{n}" for split, n in self.counts.items())
        return f"motion-v{GENERATOR}-seed{self.seed}-{counts}"

    def clips(self) -> Iterator[tuple[str, str, int]]:
        """(split, class, index within them) of every clip, in the manifest's order."""
        for split, count in self.counts.items():
            for index in range(count):
                for label in motion_scene.CLASSES:
                    yield split, label, index


def clip_frames(seed: int, split: str, label: str, index: int) -> np.ndarray:
    """Frames of one clip before encoding: (24, 64, 64, 3) uint8 RGB, a function of these four alone."""
    place = (_SPLITS.index(split), list(motion_scene.CLASSES).index(label), index)
    return motion_scene.frames(label, np.random.default_rng([seed, *place]))


def cache_root() -> Path:
    """$HARDROUTE_CACHE, or ~/.cache/hardroute."""
    return Path(os.environ.get("HARDROUTE_CACHE") or Path.home() / ".cache" / "hardroute")


def cached(spec: str | MotionSpec, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of the rendered set, rendered now if it is not in the cache. Raises DataError."""
    spec = MotionSpec.parse(spec) if isinstance(spec, str) else spec
    folder = cache_root() / spec.key
    return folder if (folder / MANIFEST).is_file() else render(spec, folder, progress)


def render(spec: str | MotionSpec, out: str | Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Render a motion set into the new folder `out`: video files and manifest.csv. Returns `out`.

    `progress(done, total)` is called after each clip. The folder appears only when it is complete. Raises
    DataError.
    """
    spec = MotionSpec.parse(spec) if isinstance(spec, str) else spec
    out, rendered = Path(out), False
    try:
        with new_folder(out) as folder:
            _render_into(folder, spec, progress)
            rendered = True
    except OSError as error:
        if rendered and error.errno in (errno.ENOTEMPTY, errno.EEXIST) and (out / MANIFEST).is_file():
            return out  # another process rendered the same set meanwhile: theirs is as good
        if isinstance(error, FileExistsError) and out.exists():
            raise DataError(f"{out}: already there; choose a new folder or remove it first") from None
        raise DataError(f"{out}: cannot be written ({error.strerror}); free some space or choose another") from None
    return out


def _render_into(folder: Path, spec: MotionSpec, progress: Callable[[int, int], None] | None) -> None:
    clips = list(spec.clips())
    names = [f"{split}/{label}-{index:05d}.avi" for split, label, index in clips]
    for split in {split for split, _, _ in clips}:
        (folder / split).mkdir()

    def make(name: str, clip: tuple[str, str, int]) -> None:
        write_video(folder / name, clip_frames(spec.seed, *clip))

    # Threads suffice: OpenCV and numpy let go of the interpreter, and a fork would not be safe next to torch.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        try:
            for done, _ in enumerate(pool.map(make, names, clips), 1):
                if progress:
                    progress(done, len(clips))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    rows = zip(names, clips, strict=True)
    write_manifest(
        folder, ((name, label, split, f"{split}-{label}-{index:05d}") for name, (split, label, index) in rows)
    )


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write RGB frames (T, H, W, 3) uint8 as a Motion JPEG .avi. Raises DataError if it is not whole after."""
    height, width = frames.shape[1:3]
    # Motion JPEG codes each frame by itself. A codec that predicts from the frames before leaves trails
    # behind a moving shape, and then a single frame would tell the class.
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, motion_scene.FPS, (width, height))
    try:
        if not writer.isOpened():
            raise DataError(f"{path}: OpenCV cannot write Motion JPEG video here; check space and permissions")
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
    finally:
        writer.release()
    # OpenCV says nothing of a disk that ran full; only the length in the header does not fit the file then.
    with path.open("rb") as file:
        stated = int.from_bytes(file.read(8)[4:], "little") + 8
    if stated != path.stat().st_size:
        raise DataError(f"{path}: was not written to its end; free some space and try again")

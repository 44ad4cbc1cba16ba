"""A labelled set of video files: its rows, its splits, and balanced parts of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from hardroute.runtime.errors import DataError


@dataclass(frozen=True)
class ClipRow:
    """One labelled video. `file` is the path as the manifest has it; `group` is what must not straddle
    splits.
    """

    path: Path
    file: str
    label: str
    split: str
    group: str


@dataclass(frozen=True)
class ClipSet:
    """Labelled videos. `classes` (sorted) are those of the whole set, also after `split` and `take`."""

    name: str
    classes: tuple[str, ...]
    rows: tuple[ClipRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, name: str) -> ClipSet:
        """The rows of one split. Raises DataError, naming the splits there are, if it has none."""
        rows = tuple(row for row in self.rows if row.split == name)
        if not rows:
            known = ", ".join(sorted({row.split for row in self.rows})) or "none"
            raise DataError(f"{self.name}: no clips in split {name!r}; its splits are: {known}")
        return ClipSet(self.name, self.classes, rows)

    def take(self, n: int, seed: int = 0) -> ClipSet:
        """A subset of `n` clips (all, if there are fewer), as balanced over classes as they allow, in
        manifest order.

        The same seed gives the same clips, and a smaller `n` a subset of a larger one's.
        """
        if n < 1:
            raise DataError(f"{self.name}: cannot take {n} clips; ask for at least 1")
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self.rows))
        class_order = {self.classes[i]: int(rank) for rank, i in enumerate(rng.permutation(len(self.classes)))}
        turns: dict[str, int] = {}
        ranked = []
        for i in order.tolist():
            label = self.rows[i].label
            turn = turns[label] = turns.get(label, -1) + 1
            ranked.append((turn, class_order[label], i))
        chosen = sorted(i for _, _, i in sorted(ranked)[:n])
        return ClipSet(self.name, self.classes, tuple(self.rows[i] for i in chosen))


def inside(root: Path, file: str, where: str) -> Path:
    """`root`/`file`, checked to lie in `root`. Raises DataError, which begins with `where`."""
    # Windows spellings are refused everywhere, so that a set means the same on every machine.
    pure = PurePosixPath(file)
    windows = PureWindowsPath(file)
    if pure.is_absolute() or windows.drive or windows.root or ".." in windows.parts or "\0" in file:
        raise DataError(f"{where}: {file!r} is not a plain path inside the set; write it relative, without ..")
    path = root / pure
    try:
        inside = path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        inside = False
    if not inside:
        raise DataError(f"{where}: {file!r} leads outside the set's folder; copy the file into it")
    return path

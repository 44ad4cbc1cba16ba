"""Labelled sets of video files: a folder with a manifest.csv, or the procedural `motion` set."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from hardroute.runtime.errors import DataError

MANIFEST = "manifest.csv"
REQUIRED = ("file", "label", "split")
MAX_ROWS = 2_000_000


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


def open_set(spec: str | Path, progress: Callable[[int, int], None] | None = None) -> ClipSet:
    """Open a folder with a manifest.csv, `ucf101:DIR` or `hmdb51:DIR` (runtime.datasets.official), or the procedural
    set: "motion", "motion:seed=0,train=250,val=25,test=40".

    The counts are clips per class; the motion set is rendered into a cache folder on first use. Raises
    DataError.
    """
    text = str(spec)
    if text == "motion" or text.startswith("motion:"):
        from hardroute.runtime.datasets import motion

        return read_manifest(motion.cached(text, progress), name=text)
    if text.partition(":")[0] in ("ucf101", "hmdb51"):
        from hardroute.runtime.datasets.official import open_official

        return open_official(text)
    return read_manifest(Path(text))


def read_manifest(folder: Path, name: str | None = None) -> ClipSet:
    """Read `folder`/manifest.csv (columns file, label, split and, if there, group). Raises DataError."""
    folder = Path(folder)
    name = name or str(folder)
    manifest = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"{name}: no such folder; give a folder with a {MANIFEST}, or motion")
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            rows = _rows(folder.resolve(), name, csv.DictReader(file, strict=True))
    except FileNotFoundError:
        raise DataError(f"{name}: no {MANIFEST} in it; it needs the columns {', '.join(REQUIRED)}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{manifest}: cannot be read as CSV in UTF-8 ({error}); export it again") from None
    return ClipSet(name, tuple(sorted({row.label for row in rows})), rows)


def _rows(root: Path, name: str, reader: csv.DictReader[str]) -> tuple[ClipRow, ...]:
    missing = [column for column in REQUIRED if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{name}: {MANIFEST} has no column {', '.join(missing)}; it needs {', '.join(REQUIRED)}")
    rows: list[ClipRow] = []
    seen: set[str] = set()
    for cells in reader:
        where = f"{name}: {MANIFEST} line {reader.line_num}"
        values = {column: (cells.get(column) or "").strip() for column in REQUIRED}
        for column, value in values.items():
            if not value:
                raise DataError(f"{where}: empty {column}; fill it in or take the line out")
        file = values["file"]
        if file in seen:
            raise DataError(f"{where}: {file} is named twice; keep one of the lines")
        if len(seen) >= MAX_ROWS:
            raise DataError(f"{where}: more than {MAX_ROWS:,} clips; split the set")
        seen.add(file)
        # A clip without a group stands for itself.
        group = (cells.get("group") or "").strip() or file
        rows.append(ClipRow(inside(root, file, where), file, values["label"], values["split"], group))
    if not rows:
        raise DataError(f"{name}: {MANIFEST} lists no clips; add a line per video")
    return tuple(rows)


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

"""A set by its manifest.csv: a line for each video of the folder, with its label, its split and its group."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from hardroute.runtime.datasets.dataset import ClipRow, ClipSet, inside
from hardroute.runtime.errors import DataError
from hardroute.runtime.files import open_regular

MANIFEST = "manifest.csv"
REQUIRED = ("file", "label", "split")
MAX_ROWS = 2_000_000


def write_manifest(folder: Path, rows: Iterable[tuple[str, str, str, str]]) -> None:
    """Writes `folder`/manifest.csv from (file, label, split, group) rows. Raises OSError."""
    with (folder / MANIFEST).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([(*REQUIRED, "group"), *rows])


def read_manifest(folder: Path, name: str | None = None) -> ClipSet:
    """Read `folder`/manifest.csv (columns file, label, split and, if there, group). Raises DataError."""
    name = name or str(folder)
    manifest = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"{name}: no such folder; give a folder with a {MANIFEST}, or motion")
    try:
        with open_regular(manifest) as file, io.TextIOWrapper(file, newline="", encoding="utf-8-sig") as text:
            rows = _rows(folder.resolve(), name, csv.DictReader(text, strict=True))
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

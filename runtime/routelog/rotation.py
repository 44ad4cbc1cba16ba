"""A full file makes room: it is renamed after its first line, and the oldest go."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path

from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.routelog.files import first_seq, rotated_files, rotated_name
from hardroute.runtime.routelog.recovery import hold


def rotate(path: Path, first: int) -> io.FileIO:
    """Renames the file and puts an empty one, locked, in its place.

    The path is never without a file and never has one without a lock, so a second writer finds no gap to slip into;
    wherever a crash stops this, `take_up` goes on.

    Args:
        path: the full file, locked by the caller, who may close it afterwards.
        first: number of its first line.

    Raises:
        HardrouteError: there is a file of the new name.
        OSError: the system refused; nothing has changed for a reader.
    """
    rotated, fresh = rotated_name(path, first), path.with_name(f"{path.name}.next")
    with suppress(FileNotFoundError):
        fresh.unlink()
    file = hold(fresh)
    try:
        try:
            os.link(path, rotated)
        except FileExistsError:
            # Its own name from a rotation that could not be finished is welcome.
            if not rotated.samefile(path):
                raise HardrouteError(f"route log {path}: will not write over {rotated}; move that away") from None
        os.rename(fresh, path)
    except BaseException:
        file.close()
        raise
    return file


def surplus(path: Path, keep: int | None) -> tuple[list[Path], list[Path]]:
    """The rotated files, oldest first: those that must go so that `keep` are left (None: all), and the others."""
    if keep is None:
        return [], []
    older = rotated_files(path)
    cut = max(0, len(older) - keep)
    return older[:cut], older[cut:]


def oldest(kept: list[Path], following: int) -> int:
    """Number of the first line that is left when the files `kept` are; `following`: of the line after them."""
    seq = first_seq(kept[0]) if kept else None
    return following if seq is None else seq


def sync_folder(path: Path) -> None:
    """Returns once the names in the file's folder are on the disk."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

"""What a running audit has found so far, on disk: one that was killed goes on where it was.

Several processes may share a journal's folder; what each finds, all have. A job is claimed by a lock on a file, which
the system lets go when its holder ends, however it ends: a claim is never left behind, as a file that merely exists
would be, and jobs dealt out beforehand would wait for the slowest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar
from zipfile import BadZipFile

import numpy as np

from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.files import replacing

ROOT = Path(__file__).resolve().parents[2]
MAX_NOTE: Final = 65536  # bytes of a claim's file
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Member:
    """One of the processes that share a journal. `reports`: it is the one that tells their user how they fare."""

    name: str
    reports: bool


class ToldElsewhere(Exception):
    """This process cannot go on, and the one that reports says why."""


class Journal:
    """Results of one audit, dataclasses of arrays, in a folder of their own.

    Args:
        folder: where the folders of audits lie; made when the first result is kept.
        key: digest of all that decides the results (`key_of`); another key never sees these.
        member: which of the processes this is, where several share the folder.
    """

    def __init__(self, folder: str | Path, key: str, member: Member | None = None) -> None:
        self.folder, self.member = Path(folder) / key[:32], member

    def find(self, attack: str, eps: float, clips: np.ndarray, kind: type[Entry]) -> Entry | None:
        """What is kept for these clips (indices), as `kind`; None if there is nothing, or it cannot be read whole."""
        try:
            with np.load(self._path(attack, eps, clips), allow_pickle=False) as kept:
                if not np.array_equal(kept["clips"], clips):
                    return None
                return kind(**{field.name: kept[field.name] for field in fields(kind)})  # type: ignore[arg-type]
        except (OSError, KeyError, ValueError, EOFError, BadZipFile):
            return None

    def keep(self, attack: str, eps: float, clips: np.ndarray, result: Any) -> None:
        """Writes a result: it is there whole or not at all. Raises HardrouteError if it cannot be written."""
        with self._writable(), replacing(self._path(attack, eps, clips)) as file:
            np.savez(file, clips=clips, **asdict(result))

    @contextmanager
    def claim(self, attack: str, eps: float, clips: np.ndarray) -> Iterator[Claim | None]:
        """Within: no other process has this job; None where one has. Raises HardrouteError if it cannot be locked."""
        with self._writable():
            file = open(self._path(attack, eps, clips).with_suffix(".claim"), "a+b")  # noqa: SIM115 closed below
        with file:
            try:
                with self._writable():
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield Claim(file, self.member or Member("this process", True))

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except BlockingIOError:
            raise
        except OSError as error:
            raise HardrouteError(
                f"{self.folder}: results cannot be kept ({error.strerror}); make room there or choose another folder"
            ) from None

    def _path(self, attack: str, eps: float, clips: np.ndarray) -> Path:
        # The clips are part of the name: a spared clip changes the batches after it.
        what = hashlib.sha256(json.dumps([attack, eps.hex(), clips.tolist()]).encode()).hexdigest()
        return self.folder / f"{what[:32]}.npz"


class Claim:
    """A job that this process has, and a file that says to the others what became of it."""

    def __init__(self, file: BinaryIO, member: Member) -> None:
        self._file, self._member = file, member

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within: the job is done. What goes wrong is told to the one that reports; elsewhere it is ToldElsewhere."""
        self._write(by=self._member.name)
        try:
            yield
        except Exception as error:
            mistake = isinstance(error, HardrouteError)
            self._write(mistake=mistake, says=str(error) if mistake else traceback.format_exc())
            if self._member.reports:
                raise
            raise ToldElsewhere from error
        self._write(done=True)

    def require_done(self) -> None:
        """Raises what ended the process that had the job before: its HardrouteError, or one that says that it ended."""
        try:
            self._file.seek(0)
            note = json.loads(self._file.read(MAX_NOTE))
        except (OSError, ValueError):
            note = {}
        if note.get("done"):
            return
        if not self._member.reports:
            raise ToldElsewhere
        if "says" in note:
            raise (HardrouteError if note.get("mistake") else RuntimeError)(str(note["says"]))
        by = note.get("by", "another process of this audit")
        raise HardrouteError(f"{by} has ended; start the audit again in the same way: it goes on where it was")

    def _write(self, **note: object) -> None:
        self._file.truncate(0)
        self._file.write(json.dumps(note).encode()[:MAX_NOTE])
        self._file.flush()


def key_of(conditions: Mapping[str, Any], *arrays: np.ndarray) -> str:
    """SHA-256 over plain values, arrays, the code of audit, models and clips, and the libraries' versions.

    Any change to one of them is another audit: results of the one are never taken for the other's.
    """
    digest = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode())
    for name in ("torch", "numpy"):
        digest.update(f"{name} {version(name)}\n".encode())
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    for package in ("audit", "models", "runtime/clips", "runtime/datasets"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()

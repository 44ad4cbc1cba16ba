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
MAX_SAID: Final = 8192  # characters of an error in a claim's file
MAX_NOTE: Final = 65536  # bytes of such a file that are read
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Member:
    """One of the processes that share a journal.

    Attributes:
        name: in what is said of it. run: tells this start of them from earlier ones in the same folder.
        reports: it is the one that tells their user how they fare.
    """

    name: str
    run: str
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
    def claim(self, attack: str, eps: float, clips: np.ndarray, member: Member) -> Iterator[Claim | None]:
        """Within: no other process has this job; None where one has.

        Raises HardrouteError if it cannot be locked, or with what ended the process that had it before in this run;
        ToldElsewhere instead of the latter in a process that does not report.
        """
        with self._writable():
            file = open(self._path(attack, eps, clips).with_suffix(".claim"), "a+b")  # noqa: SIM115 closed below
        with file:
            try:
                with self._writable():
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            claim = Claim(file, member)
            claim.require_well()
            yield claim

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
        self._write(state="begun")
        try:
            yield
        except Exception as error:
            mistake = isinstance(error, HardrouteError)
            says = str(error) if mistake else traceback.format_exc()
            self._write(state="failed", mistake=mistake, says=says[-MAX_SAID:])
            if self._member.reports:
                raise
            raise ToldElsewhere from error
        self._write(state="done")

    def require_well(self) -> None:
        """Raises what ended the process of this run that had the job before, unless it did it."""
        note = self._read()
        if note.get("run") != self._member.run or note.get("state") == "done":
            return
        if not self._member.reports:
            raise ToldElsewhere
        if note.get("state") == "failed":
            raise (HardrouteError if note.get("mistake") else RuntimeError)(str(note.get("says")))
        by = note.get("by")
        raise HardrouteError(f"{by} has ended; start the audit again in the same way: it goes on where it was")

    def _read(self) -> dict[str, object]:
        self._file.seek(0)
        try:
            note = json.loads(self._file.read(MAX_NOTE))
        except ValueError:  # nothing yet, or of a process that was killed while it wrote
            return {}
        return note if isinstance(note, dict) else {}

    def _write(self, **note: object) -> None:
        self._file.truncate(0)
        self._file.write(json.dumps({"run": self._member.run, "by": self._member.name, **note}).encode())
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

"""What a running audit has found so far, on disk: one that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np

from hardroute.runtime.errors import HardrouteError

ROOT = Path(__file__).resolve().parents[2]
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Unit:
    """What one attack did to n clips at one eps. M experts, K classes.

    Attributes:
        label, route: (n,) class (-1: no answer) and expert on the perturbed clip.
        router, logits: (n, M) and (n, K) float32 answers of router and model there.
        distance: (n,) float64 ||x - x_adv||_2.
        rounded_label, rounded_route, rounded_margin: (n,) class, expert and class margin after rounding to 8 bits.
        better: (n,) bool: the rounded margin is the clip's smallest yet.
        frames: (b, T, H, W, 3) uint8: of the b clips that are better, the rounded clip.
        passes: (4,) int64 clips that went through: router forward, router backward, experts forward, backward.
    """

    label: np.ndarray
    route: np.ndarray
    router: np.ndarray
    logits: np.ndarray
    distance: np.ndarray
    rounded_label: np.ndarray
    rounded_route: np.ndarray
    rounded_margin: np.ndarray
    better: np.ndarray
    frames: np.ndarray
    passes: np.ndarray


class Journal:
    """Units of one audit, dataclasses of arrays, in a folder of their own.

    Args:
        folder: where the folders of audits lie; made when the first unit is kept.
        key: digest of all that decides the results (`key_of`); another key never sees these units.
    """

    def __init__(self, folder: str | Path, key: str) -> None:
        self.folder = Path(folder) / key[:32]

    def has(self, attack: str, eps: float, some: np.ndarray) -> bool:
        """Whether there is a unit for these clips (indices); `find` tells whether it is whole."""
        return self._path(attack, eps, some).is_file()

    def find(self, attack: str, eps: float, some: np.ndarray, kind: type[Kept]) -> Kept | None:
        """The unit of that kind kept for these clips (indices); None if there is none, or it cannot be read whole."""
        try:
            with np.load(self._path(attack, eps, some), allow_pickle=False) as kept:
                if not np.array_equal(kept["some"], some):
                    return None
                return kind(**{field.name: kept[field.name] for field in fields(kind)})  # type: ignore[arg-type]
        except (OSError, KeyError, ValueError, EOFError, BadZipFile):
            return None

    def keep(self, attack: str, eps: float, some: np.ndarray, unit: Any) -> None:
        """Writes a unit: it is there whole or not at all. Raises HardrouteError if it cannot be written."""
        path = self._path(attack, eps, some)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
                np.savez(file, some=some, **asdict(unit))
            os.replace(file.name, path)
        except OSError as error:
            raise HardrouteError(
                f"{self.folder}: results cannot be kept ({error.strerror}); make room or choose another --out"
            ) from None

    def _path(self, attack: str, eps: float, some: np.ndarray) -> Path:
        # The clips are part of the name: a spared clip changes the chunks after it.
        what = hashlib.sha256(json.dumps([attack, eps.hex(), some.tolist()]).encode()).hexdigest()
        return self.folder / f"{what[:32]}.npz"


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

"""Probes: a few clips and what the network must answer to them, stored when the bundle was exported."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from hardroute.runtime.clips import ClipContract
from hardroute.runtime.errors import BundleError
from hardroute.runtime.prediction import Prediction

MAX_PROBES: Final = 1024
MAX_BYTES: Final = 2**28  # of all their arrays
_DTYPES: Final = {"frames": "uint8", "router_logits": "float32", "routes": "int64", "logits": "float32"}


@dataclass(frozen=True)
class Probes:
    """Expected answers, replayed whenever a bundle is loaded.

    Attributes:
        frames: (P, T, H, W, 3) uint8, RGB.
        router_logits: (P, M) float32, the router's scores for the M experts.
        routes: (P,) int64, the chosen expert.
        logits: (P, K) float32, what the chosen expert answered over the K classes.
    """

    frames: np.ndarray
    router_logits: np.ndarray
    routes: np.ndarray
    logits: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def save(self, path: Path) -> None:
        """Writes the arrays as an uncompressed `.npz` in the dtypes that `from_bytes` asks for."""
        arrays = {name: np.asarray(getattr(self, name), dtype) for name, dtype in _DTYPES.items()}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def from_bytes(cls, data: bytes, contract: ClipContract, experts: int, classes: int) -> Probes:
        """Reads `probes.npz` without trusting it: no pickle, and every shape is known before it is allocated.

        Args:
            data: the file's bytes.
            contract: fixes T, H and W.
            experts: M.
            classes: K.

        Raises:
            BundleError: an array is missing, not finite, of another dtype or shape; a route out of range.
        """
        shapes = {
            "frames": (contract.frames, contract.height, contract.width, 3),
            "router_logits": (experts,),
            "routes": (),
            "logits": (classes,),
        }
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                left, arrays = MAX_BYTES, {}
                for name, shape in shapes.items():
                    arrays[name] = _read(archive, name, shape, left)
                    left -= arrays[name].nbytes
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, NotImplementedError) as error:
            raise BundleError(f"probes: not a readable npz ({error}); export the bundle again") from None
        probes = cls(**arrays)
        if any(len(array) != len(probes) for array in arrays.values()):
            raise BundleError("probes: the arrays hold different numbers of clips; export the bundle again")
        if not (np.isfinite(probes.logits).all() and np.isfinite(probes.router_logits).all()):
            raise BundleError("probes: expected logits are not finite; export the bundle again")
        if not ((probes.routes >= 0) & (probes.routes < experts)).all():
            raise BundleError(f"probes: a route is not one of the {experts} experts; export the bundle again")
        return probes

    def first_difference(self, found: Sequence[Prediction], tolerance: float) -> str | None:
        """What the first probe says that was answered otherwise than at export, or None.

        Args:
            found: the answers to `frames`, in their order.
            tolerance: largest absolute difference of a logit that still counts as equal.
        """
        for n, answer in enumerate(found):
            expected, chosen = self.routes[n], answer.route.expert
            if chosen != expected:
                return f"probe {n}: expert {chosen} was chosen instead of expert {expected}"
            for what, ours, theirs in (
                ("a router logit", answer.route.logits, self.router_logits[n]),
                (f"a logit of expert {chosen}", answer.logits, self.logits[n]),
            ):
                gap = float(np.abs(ours - theirs).max())
                if gap > tolerance:
                    return f"probe {n}: {what} differs by {gap:.3g}, more than the tolerance {tolerance:g}"
        return None


def _read(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], left: int) -> np.ndarray:
    """Reads one array of (P, *shape) and `left` bytes at most; its header is judged before anything is allocated."""
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name}: unknown npy version")
        found, _, dtype = np.lib.format.read_array_header_1_0(file)
    clips = found[0] if found else 0
    if dtype != np.dtype(_DTYPES[name]) or found != (clips, *shape) or not 1 <= clips <= MAX_PROBES:
        expected = ", ".join([f"1..{MAX_PROBES}", *map(str, shape)])
        raise ValueError(f"{name} is {dtype} {found}, expected {_DTYPES[name]} ({expected})")
    if math.prod(found) * dtype.itemsize > left:
        raise ValueError(f"{name} and what is before it take more than {MAX_BYTES} bytes")
    if entry.file_size < math.prod(found) * dtype.itemsize:
        raise ValueError(f"{name} is cut short")
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)

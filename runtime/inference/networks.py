"""The networks of a bundle on one inference library: the router, and the experts that it chooses among."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from hardroute.runtime.backends import Backend, Session, Uint8Backend
from hardroute.runtime.bundle.bundle import Bundle
from hardroute.runtime.bundle.onnx_allowlist import check_onnx
from hardroute.runtime.clips import to_network, to_planes
from hardroute.runtime.errors import BundleError, ClipError, EngineError
from hardroute.runtime.prediction import Prediction, Route, Timing

MAX_BATCH: Final = 8  # clips in one run of a network, unless told otherwise: its memory grows with them
_SCRATCH_BYTES: Final = 64 * 2**20


class Networks:
    """Router and experts, loaded. Every answer is checked: shape, type, and that it is finite.

    Clips are frames (N, T, H, W, 3) uint8 of the contract's size. What the sessions take is made of them in memory that
    each thread keeps: floats, or the bare planes of colour where `uint8` says that the sessions take those.

    Attributes:
        bundle: where the networks come from.
        tolerance: largest difference of a logit from its probe that still counts as equal. Routes must be the same in
            any case.
    """

    def __init__(
        self,
        bundle: Bundle,
        router: Session,
        experts: Sequence[Session],
        uint8: bool = False,
        tolerance: float | None = None,
    ) -> None:
        self.bundle = bundle
        self.tolerance = bundle.manifest.tolerance if tolerance is None else tolerance
        if not 0 <= self.tolerance < math.inf:  # not a number compares as equal with anything
            raise EngineError(f"tolerance {tolerance}: must be a number from 0; leave it out for the bundle's own")
        channels, *rest = bundle.manifest.contract.shape
        self._frame_shape = (*rest, channels)
        self._convert = to_planes if uint8 else to_network
        self._dtype = np.dtype(np.uint8 if uint8 else np.float32)
        self._router = router
        self._experts = tuple(experts)
        self._scratch = threading.local()

    @classmethod
    def load(cls, bundle: Bundle, library: Backend, tolerance: float | None = None) -> Networks:
        """Makes a session of each network; the bytes that a library gets are those that were verified.

        Args:
            bundle: where they come from.
            library: what will run them.
            tolerance: of these networks; None: the manifest's.

        Raises:
            BundleError: a file was changed since the bundle was opened, or holds what no network of ours does.
            BackendError: the library cannot run here.
            EngineError: the tolerance is negative or no number.
        """
        uint8 = isinstance(library, Uint8Backend)
        load = library.load_uint8 if isinstance(library, Uint8Backend) else library.load

        def session(name: str) -> Session:
            model = bundle.read(name)
            check_onnx(model, name)
            return load(model, name)

        router, *experts = map(session, bundle.manifest.networks)
        return cls(bundle, router, experts, uint8, tolerance)

    def check(self, frames: np.ndarray) -> None:
        """Raises ClipError unless these are clips (N, T, H, W, 3) uint8 of the contract."""
        if not isinstance(frames, np.ndarray):
            raise ClipError(f"frames are a {type(frames).__name__}, expected a numpy array of uint8 RGB in 0..255")
        if frames.dtype != np.uint8:
            raise ClipError(f"frames are {frames.dtype}, expected uint8 RGB in 0..255")
        if frames.ndim != 5 or frames.shape[1:] != self._frame_shape:
            expected = ", ".join(["N", *map(str, self._frame_shape)])
            raise ClipError(f"frames have the shape {frames.shape}, this bundle takes ({expected})")

    def route(self, frames: np.ndarray) -> list[Route]:
        """Which expert each of N clips is to be answered by."""
        return self._route(self._inputs(frames))

    def answer(self, expert: int, frames: np.ndarray) -> np.ndarray:
        """The logits (N, K) float32 of one expert. Raises EngineError if there is no such expert."""
        if not 0 <= expert < len(self._experts):
            raise EngineError(f"there is no expert {expert}; this bundle has 0 to {len(self._experts) - 1}")
        return self._answer(expert, self._inputs(frames))

    def predict(self, frames: np.ndarray) -> list[Prediction]:
        """Routes N >= 1 clips; each chosen expert runs once, on its clips together."""
        started = time.perf_counter()
        clips = self._inputs(frames)
        routes = self._route(clips)
        routing = _milliseconds(started) / len(clips)

        chosen = {route.expert for route in routes}
        if len(chosen) == 1:  # always so for a single clip: nothing to pick, nothing to put back
            started = time.perf_counter()
            logits = self._answer(chosen.pop(), clips)
            timings = [Timing(0.0, routing, _milliseconds(started) / len(clips))] * len(clips)
            return Prediction.batch(self.bundle.manifest.classes, routes, logits, timings)

        logits = np.empty((len(clips), len(self.bundle.manifest.classes)), np.float32)
        spent = np.empty(len(clips))
        for expert in sorted(chosen):
            started = time.perf_counter()
            mine = [n for n, route in enumerate(routes) if route.expert == expert]
            logits[mine] = self._answer(expert, clips[mine])
            spent[mine] = _milliseconds(started) / len(mine)
        timings = [Timing(0.0, routing, own) for own in spent.tolist()]
        return Prediction.batch(self.bundle.manifest.classes, routes, logits, timings)

    def replay_probes(self) -> None:
        """Answers the bundle's probes; BundleError names the first difference from what was stored at export."""
        probes = self.bundle.probes()
        found = self.predict(probes.frames)
        if difference := probes.first_difference(found, self.tolerance):
            raise BundleError(
                f"bundle {self.bundle.root}: {difference}; "
                "this backend does not compute what was exported: choose another or export again"
            )

    def _route(self, clips: np.ndarray) -> list[Route]:
        return Route.batch(_run(self._router, clips, self.bundle.manifest.router, len(self._experts)))

    def _answer(self, expert: int, clips: np.ndarray) -> np.ndarray:
        manifest = self.bundle.manifest
        return _run(self._experts[expert], clips, manifest.experts[expert].file, len(manifest.classes))

    def _inputs(self, frames: np.ndarray) -> np.ndarray:
        # Fresh pages for every batch cost more than the conversion that fills them; a huge batch is not kept.
        if self._dtype.itemsize * frames.size > _SCRATCH_BYTES:
            return self._convert(frames)
        kept: np.ndarray | None = getattr(self._scratch, "inputs", None)
        if kept is None or kept.size < frames.size:
            kept = self._scratch.inputs = np.empty(frames.size, self._dtype)
        n, t, h, w, channels = frames.shape
        return self._convert(frames, kept[: frames.size].reshape(n, channels, t, h, w))


def _run(session: Session, clips: np.ndarray, name: str, width: int) -> np.ndarray:
    outputs = session.run(clips)
    if outputs.shape != (len(clips), width) or outputs.dtype != np.float32:
        raise BundleError(f"{name} answered {outputs.dtype} {outputs.shape}, expected float32 ({len(clips)}, {width})")
    if not np.isfinite(outputs).all():
        raise BundleError(f"{name} answered with numbers that are not finite")
    return outputs


def _milliseconds(since: float) -> float:
    return (time.perf_counter() - since) * 1000

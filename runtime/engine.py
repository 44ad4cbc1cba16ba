"""The engine: a clip goes through the router and then through one expert."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from runtime.backends import Backend, Session, open_backend
from runtime.bundle import Bundle
from runtime.clips import ClipContract, DecodedClip, Limits, decode, to_network
from runtime.errors import BundleError, ClipError
from runtime.onnxfile import check_onnx
from runtime.prediction import Prediction, Route, Timing, softmax


class Engine:
    """A loaded bundle, ready to classify. Make one with `Engine.load`.

    One engine may be called from several threads. Load it after a fork, not before: the threads of an
    inference library do not survive one.

    >>> with Engine.load("models/zoo/motion") as engine:  # doctest: +SKIP
    ...     print(engine.predict("clip.mp4").label)
    """

    def __init__(self, bundle: Bundle, router: Session, experts: Sequence[Session]) -> None:
        self.bundle = bundle
        self._sessions: tuple[Session, tuple[Session, ...]] | None = (router, tuple(experts))

    @classmethod
    def load(
        cls,
        bundle: str | Path | Bundle,
        backend: str | Backend = "cpu",
        verify: bool = True,
        threads: int | None = None,
    ) -> Engine:
        """Opens a bundle, loads its router and all experts, and lets them answer the stored probes.

        Args:
            bundle: the folder. Its digests are always compared, and what was compared is what gets loaded.
            backend: "cpu", "cuda" or "tensorrt", or a `Backend` of your own.
            verify: replay the probes. Without it the networks may answer otherwise than where they were
                exported, and nobody notices.
            threads: CPU threads of one network at a time; None: one per core.

        Raises:
            BundleError: the bundle is broken or changed, or does not answer its probes as it should.
            BackendError: the backend is unknown or cannot run here; there is no fallback to another one.
        """
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        library = open_backend(backend, threads) if isinstance(backend, str) else backend

        def session(name: str) -> Session:
            model = bundle.read(name)
            check_onnx(model, name)
            return library.load(model, name)

        manifest = bundle.manifest
        engine = cls(bundle, session(manifest.router), [session(expert.file) for expert in manifest.experts])
        if verify:
            engine.replay_probes()
        return engine

    @property
    def classes(self) -> tuple[str, ...]:
        """The K labels in the order of the logits."""
        return self.bundle.manifest.classes

    @property
    def contract(self) -> ClipContract:
        """How a video becomes the network's input."""
        return self.bundle.manifest.contract

    def predict(
        self, clip: str | Path | DecodedClip, *, limits: Limits = Limits(), allow_short: bool = False
    ) -> Prediction:
        """Classifies one video.

        Args:
            clip: a video file, or a clip decoded under this engine's contract.
            limits: what a video file may cost.
            allow_short: see `runtime.clips.decode`.

        Raises:
            ClipError: the video cannot be used.
        """
        decoding = 0.0
        if not isinstance(clip, DecodedClip):
            started = time.perf_counter()
            clip = decode(clip, self.contract, limits, allow_short=allow_short)
            decoding = _milliseconds(started)
        prediction = self.predict_batch(clip.frames[None])[0]
        timing = replace(prediction.milliseconds, decode=decoding)
        return replace(prediction, clip=clip.name, clip_sha256=clip.sha256, milliseconds=timing)

    def predict_batch(self, frames: np.ndarray) -> list[Prediction]:
        """Classifies clips that are frames already; each chosen expert runs once, on its clips together.

        Args:
            frames: (N, T, H, W, 3) uint8 RGB, of the contract's size.

        Returns:
            N predictions in the order of the clips. What else is in the batch changes a clip's answer by no
            more than the rounding of the inference library.

        Raises:
            ClipError: wrong dtype or shape.
            BundleError: a network answered with a wrong shape or something that is not finite.
        """
        if self._sessions is None:
            raise RuntimeError("the engine is closed")
        # Held here, so that close() in another thread cannot take a network away in the middle of a batch.
        router, experts = self._sessions
        self._check_frames(frames)
        if not len(frames):
            return []
        started = time.perf_counter()
        clips = to_network(frames)
        router_logits = self._run(router, clips, self.bundle.manifest.router, len(experts))
        routes = router_logits.argmax(axis=1)
        routing = _milliseconds(started) / len(frames)

        logits = np.empty((len(frames), len(self.classes)), np.float32)
        expert_ms = np.empty(len(frames))
        for expert in np.unique(routes):
            started = time.perf_counter()
            mine = np.flatnonzero(routes == expert)
            # Picking clips copies them; a batch that went to one expert as a whole needs no copy.
            inputs = clips if len(mine) == len(clips) else clips[mine]
            name = self.bundle.manifest.experts[expert].file
            logits[mine] = self._run(experts[expert], inputs, name, len(self.classes))
            expert_ms[mine] = _milliseconds(started) / len(mine)
        probabilities = softmax(logits)
        return [
            self._prediction(router_logits[n], logits[n], probabilities[n], Timing(0.0, routing, expert_ms[n].item()))
            for n in range(len(frames))
        ]

    def replay_probes(self) -> None:
        """Classifies the bundle's probes and compares routes and logits with what was stored at export.

        Raises:
            BundleError: naming the first difference.
        """
        probes = self.bundle.probes()
        found = self.predict_batch(probes.frames)
        if difference := probes.first_difference(found, self.bundle.manifest.tolerance):
            raise BundleError(
                f"bundle {self.bundle.root}: {difference}; "
                "this backend does not compute what was exported: choose another or export again"
            )

    def close(self) -> None:
        """Lets go of the networks. Calls that are running finish; later ones raise RuntimeError."""
        self._sessions = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_frames(self, frames: np.ndarray) -> None:
        channels, *rest = self.contract.shape
        if frames.dtype != np.uint8:
            raise ClipError(f"frames are {frames.dtype}, expected uint8 RGB in 0..255")
        if frames.ndim != 5 or frames.shape[1:] != (*rest, channels):
            expected = ", ".join(["N", *map(str, rest), str(channels)])
            raise ClipError(f"frames have the shape {frames.shape}, this bundle takes ({expected})")

    def _run(self, session: Session, clips: np.ndarray, name: str, width: int) -> np.ndarray:
        outputs = session.run(clips)
        if outputs.shape != (len(clips), width) or outputs.dtype != np.float32:
            raise BundleError(
                f"{name} answered {outputs.dtype} {outputs.shape}, expected float32 ({len(clips)}, {width})"
            )
        if not np.isfinite(outputs).all():
            raise BundleError(f"{name} answered with numbers that are not finite")
        return outputs

    def _prediction(
        self, router_logits: np.ndarray, logits: np.ndarray, probabilities: np.ndarray, timing: Timing
    ) -> Prediction:
        index = int(logits.argmax())
        return Prediction(
            label=self.classes[index],
            index=index,
            probability=probabilities[index].item(),
            probabilities=probabilities,
            logits=logits,
            route=Route.from_logits(router_logits),
            milliseconds=timing,
            clip="",
            clip_sha256="",
        )


def _milliseconds(since: float) -> float:
    return (time.perf_counter() - since) * 1000

"""The engine: a clip goes through the router and then through one expert."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hardroute.runtime.backends import AUTO, Backend, open_backend
from hardroute.runtime.bundle.bundle import Bundle
from hardroute.runtime.clips import ClipContract, DecodedClip, Limits, decode, decode_clips
from hardroute.runtime.errors import EngineError
from hardroute.runtime.inference.backend_selection import fastest
from hardroute.runtime.inference.multi_clip import VideoPrediction
from hardroute.runtime.inference.networks import MAX_BATCH, Networks
from hardroute.runtime.prediction import Prediction, Route

if TYPE_CHECKING:
    from hardroute.runtime.bundle.trust import Trust

_logger = logging.getLogger(__name__)


class Engine:
    """A loaded bundle, ready to classify. Make one with `Engine.load`.

    One engine may be called from several threads. Load it after a fork, not before: the threads of an
    inference library do not survive one, so a forked child gets an `EngineError` from every call.

    What was loaded is what was verified, and stays in memory: a bundle that is swapped on the disk meanwhile
    changes nothing until it is loaded again.

    Attributes:
        bundle: what it serves.
        backend: which backend answers.
        chosen_because: one line that says why it was chosen.

    >>> with Engine.load("motion") as engine:  # doctest: +SKIP
    ...     print(engine.predict("clip.mp4").label)
    """

    def __init__(self, networks: Networks, backend: str, chosen_because: str = "") -> None:
        self.bundle = networks.bundle
        self.backend = backend
        self.chosen_because = chosen_because or f"backend {backend} was asked for"
        self._networks: Networks | None = networks
        self._pid = os.getpid()

    @classmethod
    def load(
        cls,
        bundle: str | Path | Bundle,
        backend: str | Backend = "cpu",
        verify: bool = True,
        threads: int | None = None,
        digest: str | None = None,
        tolerance: float | None = None,
        trust: Trust | None = None,
    ) -> Engine:
        """Opens a bundle, loads its router and all experts, and lets them answer the stored probes.

        Args:
            bundle: the folder, or as text also the name of a shipped one: see `find_bundle`. Its digests are always
                compared, and what was compared is what gets loaded.
            backend: a name in `runtime.backends.BACKENDS`, a `Backend` of your own, or "auto": the fastest of those
                that can run here and answer the probes, see `hardroute.runtime.inference.backend_selection`.
            verify: replay the probes ("auto" always does). Without it the networks may answer otherwise than where
                they were exported, and nobody notices.
            threads: CPU threads of one network at a time; None: one per core.
            digest: the bundle's `pin`, known from elsewhere; any other bundle or certificate is refused. See
                `Bundle.open`.
            tolerance: largest difference of a logit from its probe; None: the manifest's, which is meant for fp32.
                A backend of lower precision needs a larger one. Routes must be the same in any case. It holds for
                `replay_probes`, too.
            trust: whose signature the bundle must carry, and what its certificate must say. None: nobody is asked,
                and a warning in the log says so. No environment variable and no file stands in for it.

        Raises:
            TrustError: it does not meet the trust; a BundleError.
            BundleError: the bundle is broken or changed, or does not answer its probes as it should.
            BackendError: the backend is unknown or cannot run here; there is no fallback to another one.
            EngineError: the tolerance is negative or no number.
        """
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(bundle, digest)
        elif digest is not None:
            bundle.require_digest(digest)
        if trust is not None:
            bundle = trust.verify(bundle)
        elif bundle.vouched is None:
            _logger.warning("bundle %s is %s", bundle.root, bundle.standing)
        if backend == AUTO:
            name, networks, because = fastest(bundle, threads, tolerance=tolerance)
            return cls(networks, name, because)
        library = open_backend(backend, threads) if isinstance(backend, str) else backend
        networks = Networks.load(bundle, library, tolerance)
        if verify:
            networks.replay_probes()
        return cls(networks, backend if isinstance(backend, str) else type(backend).__name__)

    @property
    def classes(self) -> tuple[str, ...]:
        """The K labels in the order of the logits."""
        return self.bundle.manifest.classes

    @property
    def contract(self) -> ClipContract:
        """How a video becomes the network's input."""
        return self.bundle.manifest.contract

    def predict(
        self,
        clip: str | Path | DecodedClip,
        *,
        limits: Limits = Limits(),
        allow_short: bool = False,
        trusted: bool = False,
    ) -> Prediction:
        """Classifies one video.

        Args:
            clip: a video file, or a clip decoded under this engine's contract.
            limits: what a video file may cost.
            allow_short, trusted: see `hardroute.runtime.clips.decode_clips`.

        Raises:
            ClipError: the video cannot be used.
        """
        decoding = 0.0
        if not isinstance(clip, DecodedClip):
            started = time.perf_counter()
            clip = decode(clip, self.contract, limits, allow_short=allow_short, trusted=trusted)
            decoding = (time.perf_counter() - started) * 1000
        return _named(self.predict_batch(clip.frames[None])[0], clip, decoding)

    def predict_video(
        self,
        video: str | Path,
        clips: int,
        *,
        limits: Limits = Limits(),
        allow_short: bool = False,
        trusted: bool = False,
    ) -> VideoPrediction:
        """Classifies a video by the mean over windows of the contract's `seconds`. It is decoded once.

        Args:
            video: a file.
            clips: so many windows, spread evenly over it.
            limits: what the file may cost.
            allow_short, trusted: see `hardroute.runtime.clips.decode_clips`.

        Raises:
            ClipError: the video cannot be used, or the contract takes whole videos and several clips are asked for.
        """
        started = time.perf_counter()
        cut = decode_clips(video, self.contract, limits, clips=clips, allow_short=allow_short, trusted=trusted)
        decoding = (time.perf_counter() - started) * 1000 / clips
        frames = np.stack([clip.frames for clip in cut])
        answers = [
            answer for i in range(0, clips, MAX_BATCH) for answer in self.predict_batch(frames[i : i + MAX_BATCH])
        ]
        named = [_named(answer, clip, decoding) for answer, clip in zip(answers, cut, strict=True)]
        seconds = cut[0].seconds
        ends = [min(clip.start + (self.contract.seconds or seconds), seconds) for clip in cut]
        windows = [(clip.start, end) for clip, end in zip(cut, ends, strict=True)]
        return VideoPrediction.mean(self.classes, named, windows)

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
            EngineError: the engine is closed, or was loaded before a fork.
        """
        networks = self._checked(frames)
        return networks.predict(frames) if len(frames) else []

    def route(self, frames: np.ndarray) -> list[Route]:
        """The first half of `predict_batch`: which expert each of N clips is to be answered by.

        For callers that collect clips of one expert from several batches. Arguments and errors as there.
        """
        return self._checked(frames).route(frames)

    def answer(self, expert: int, frames: np.ndarray) -> np.ndarray:
        """The second half: the logits (N, K) float32 that one expert gives to clips that were routed to it."""
        return self._checked(frames).answer(expert, frames)

    def check(self, frames: np.ndarray) -> None:
        """Raises ClipError unless these are clips (N, T, H, W, 3) uint8 of this engine's contract."""
        self._checked(frames)

    def replay_probes(self) -> None:
        """Classifies the bundle's probes again, as `load` did; BundleError names the first difference."""
        self._open().replay_probes()

    def close(self) -> None:
        """Lets go of the networks. Calls that are running finish; later ones raise EngineError."""
        self._networks = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> Networks:
        # The caller holds what this returns, so close() in another thread cannot take it away in mid-batch.
        networks = self._networks
        if networks is None:
            raise EngineError("the engine is closed; load the bundle again")
        if os.getpid() != self._pid:
            raise EngineError("the engine was loaded before a fork and cannot work in the child; load it there")
        return networks

    def _checked(self, frames: np.ndarray) -> Networks:
        networks = self._open()
        networks.check(frames)
        return networks


def _named(answer: Prediction, clip: DecodedClip, decoding: float) -> Prediction:
    timing = replace(answer.milliseconds, decode=decoding)
    return replace(answer, clip=clip.name, clip_sha256=clip.sha256, milliseconds=timing)

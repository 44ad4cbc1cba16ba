"""Which backend answers fastest here, of those that answer as they should."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from hardroute.runtime.backends import open_backend
from hardroute.runtime.bundle.bundle import Bundle
from hardroute.runtime.bundle.onnx_allowlist import check_onnx
from hardroute.runtime.bundle.probes import Probes
from hardroute.runtime.errors import BackendError, BundleError
from hardroute.runtime.inference.networks import Networks

# All in full precision: what was certified is what is served. A faster, coarser one has to be named.
CANDIDATES: Final = ("trt", "tensorrt", "cuda", "openvino", "cpu")
_TIMED_PROBES: Final = 4
_ROUNDS: Final = 3


def fastest(
    bundle: Bundle, threads: int | None = None, candidates: Sequence[str] = CANDIDATES, tolerance: float | None = None
) -> tuple[str, Networks, str]:
    """Loads the bundle on every backend that can run here, replays the probes on each, and times those that pass.

    The time is that of single clips, the best of a few rounds, so that a busy neighbour does not decide. Two backends
    of about equal speed may still take turns from one start to the next.

    Args:
        bundle: what is to be served.
        threads: see `open_backend`.
        candidates: names of backends.
        tolerance: see `Networks.load`.

    Returns:
        The name of the backend, the networks on it, and one line that says what each candidate did.

    Raises:
        BundleError: the files hold what they should not, or no backend that can run here answers the probes.
        BackendError: none can run here.
        EngineError: the tolerance is negative or no number.
    """
    for name in bundle.manifest.networks:
        check_onnx(bundle.read(name), name)  # a fault of the file: no backend has to be asked
    probes = bundle.probes()
    refusals: dict[str, Exception] = {}
    times: dict[str, float] = {}
    best: tuple[str, Networks] | None = None
    for name in candidates:
        try:
            networks = Networks.load(bundle, open_backend(name, threads), tolerance)
            networks.replay_probes()
        except (BackendError, BundleError) as error:
            refusals[name] = error
            continue
        times[name] = _milliseconds(networks, probes)
        # Only the best so far is held: a loaded network costs its weights.
        if best is None or times[name] < times[best[0]]:
            best = name, networks
    if best is None:
        kind = BundleError if any(isinstance(error, BundleError) for error in refusals.values()) else BackendError
        raise kind("no backend can serve this bundle here: " + "; ".join(f"{n}: {e}" for n, e in refusals.items()))
    return *best, _because(best[0], times, refusals)


def _because(name: str, times: Mapping[str, float], refusals: Mapping[str, Exception]) -> str:
    measured = ", ".join(f"{other} {ms:.2f} ms" for other, ms in sorted(times.items(), key=lambda item: item[1]))
    # The first clause says what is wrong, the rest how to mend it, which nobody asked for here.
    clauses = {other: str(error).split(";")[0].split("cannot run here: ")[-1] for other, error in refusals.items()}
    refused = "; ".join(f"{other}: {clause}" for other, clause in clauses.items())
    return f"backend {name} is the fastest per clip ({measured})" + (f"; left out: {refused}" if refused else "")


def _milliseconds(networks: Networks, probes: Probes) -> float:
    clips = [probes.frames[n : n + 1] for n in range(min(len(probes), _TIMED_PROBES))]
    rounds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for clip in clips:
            networks.predict(clip)
        rounds.append(time.perf_counter() - started)
    return min(rounds) * 1000 / len(clips)

"""The engine against the bare calls that it cannot do without, against all experts, PyTorch, moe.onnx and the metal.

On the bundle that was asked for, on every backend that runs here; and on random weights of the two sizes that are
stated in the docs, on the backend that `auto` takes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch.utils.flop_counter import FlopCounterMode

from hardroute import Bundle, Engine
from hardroute.models import VideoMoE, build_model, load_twin
from hardroute.runtime.backends import Session, open_backend
from hardroute.runtime.clips import to_network
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import BackendError, BundleError
from hardroute.runtime.inference.backend_selection import CANDIDATES
from hardroute.training.export.bundle import write_bundle
from hardroute.training.run import RunRecord
from hardroute.training.settings import FitSettings
from tests.measure.bench.measure import Ratio, compare
from tests.measure.bench.subject import Subject
from tests.support.routers import spread_routes

BATCHES = (1, 8)
# width, frames, pixels; how many times slower than ours eager PyTorch should be, turns
SIZES = {
    "width 16, 12x48x48": (FitSettings(data="none", width=16, frames=12, size=48), 1 / 4, 31),
    "width 32, 16x112x112": (FitSettings(data="none", width=32, frames=16, size=112), 1 / 2, 3),
}


def serving(subject: Subject) -> list[Ratio]:
    """The bundle that was asked for, on every backend."""
    results = []
    for name in CANDIDATES:
        try:
            engine = Engine.load(subject.bundle, name)
        except (BackendError, BundleError):
            continue  # it cannot run here, or answers otherwise; `python -m tests.measure.parity` says which
        with engine:
            results += overhead(engine, subject.frames, "shipped")
    with Engine.load(subject.bundle, "auto") as engine:
        return results + rivals(engine, subject.twin, subject.frames, "shipped")


def sized(name: str, _: Subject) -> list[Ratio]:
    """Random weights of a stated size, on the backend that `auto` takes."""
    settings, goal, turns = SIZES[name]
    with untrained(settings) as (folder, frames), Engine.load(folder, "auto") as engine:
        return [
            *overhead(engine, frames, name, turns),
            *rivals(engine, load_twin(folder), frames, name, goal, turns),
            metal(engine, load_twin(folder), frames, name),
        ]


def overhead(engine: Engine, frames: np.ndarray, subject: str, turns: int = 31) -> list[Ratio]:
    """predict_batch against its session calls, and those against the calls of a model that runs every expert."""
    router, *experts = sessions(engine.bundle, engine.backend)
    results = []
    for n in BATCHES:
        clips = frames[:n]
        x = to_network(clips)

        def bare(x: np.ndarray = x) -> None:
            route = router.run(x).argmax(1)
            for j in np.unique(route):
                # Not picked out where all go to one: picking copies, which the calls could do without.
                experts[j].run(x if (route == j).all() else x[route == j])

        def everything(x: np.ndarray = x) -> None:
            for session in (router, *experts):
                session.run(x)

        def ours(clips: np.ndarray = clips) -> None:
            engine.predict_batch(clips)

        what = f"{subject}, {engine.backend}, batch {n}"
        results += [
            # Five times the turns: these differ by less than one call from the next.
            compare(f"predict_batch / bare session calls: {what}", ours, bare, goal=1.05, turns=5 * turns),
            compare(f"routed / all experts: {what}", bare, everything, goal=0.32, turns=turns),
        ]
    return results


def rivals(
    engine: Engine, twin: VideoMoE, frames: np.ndarray, subject: str, goal: float | None = None, turns: int = 9
) -> list[Ratio]:
    """predict_batch against the twin in eager mode and compiled, and against the composed file in onnxruntime."""
    results = []
    compiled = compile_parts(twin)
    single = engine.bundle.manifest.single
    composed = onnxruntime.InferenceSession(engine.bundle.read(single)) if single else None
    for n in BATCHES:
        clips = frames[:n]
        x = to_network(clips)
        tensor = torch.from_numpy(x)

        def ours(clips: np.ndarray = clips) -> None:
            engine.predict_batch(clips)

        def eager(tensor: torch.Tensor = tensor) -> None:
            with torch.inference_mode():
                twin(tensor)

        def fused(tensor: torch.Tensor = tensor) -> None:
            assert compiled
            with torch.inference_mode():
                compiled(tensor)

        def in_one(x: np.ndarray = x) -> None:
            assert composed
            composed.run(["logits"], {"clip": x})

        what = f"{subject}, {engine.backend}, batch {n}"
        results.append(compare(f"predict_batch / eager twin: {what}", ours, eager, goal=goal, turns=turns))
        if compiled:
            results.append(compare(f"predict_batch / torch.compile: {what}", ours, fused, turns=turns))
        if composed:
            results.append(compare(f"predict_batch / moe.onnx: {what}", ours, in_one, turns=turns))
    return results


def metal(engine: Engine, twin: VideoMoE, frames: np.ndarray, subject: str) -> Ratio:
    """GFLOP/s of single clips next to those of a large fp32 matrix product, the best that this processor shows."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        twin(torch.from_numpy(to_network(frames[:1])))
    side = 3072
    a = torch.rand(side, side)
    timed = compare("", lambda: engine.predict_batch(frames[:1]), lambda: a @ a, turns=9)
    ours, best = counter.get_total_flops() / timed.ours / 1e6, 2 * side**3 / timed.theirs / 1e6
    return Ratio.counted(f"of the processor's matrix product: {subject}, {engine.backend}", ours, best, "GFLOP/s")


def sessions(bundle: Bundle, backend: str) -> list[Session]:
    library = open_backend(backend)
    return [library.load(bundle.read(name), name) for name in bundle.manifest.networks]


def compile_parts(twin: VideoMoE) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Router and experts one by one, dispatched as the engine does: the dispatch of the twin cannot be traced."""
    if not shutil.which("g++"):
        return None
    # All experts share one line of code, and each batch size of each is compiled by itself.
    torch._dynamo.config.recompile_limit = 64
    router, *experts = (torch.compile(part, dynamic=False) for part in (twin.router, *twin.experts))

    def run(x: torch.Tensor) -> torch.Tensor:
        route = router(x).argmax(1)
        logits: torch.Tensor | None = None
        for j in route.unique().tolist():
            mine = route == j
            found = experts[j](x[mine])
            logits = found.new_empty(len(x), found.shape[1]) if logits is None else logits
            logits[mine] = found
        assert logits is not None
        return logits

    return run


@contextmanager
def untrained(settings: FitSettings) -> Iterator[tuple[Path, np.ndarray]]:
    """A bundle of random weights in a temporary folder, and eight clips for it."""
    record = RunRecord(settings=settings, classes=tuple("abcdefghij"), tools={})
    torch.manual_seed(0)
    model = build_model(record.spec).eval()
    contract = settings.contract
    rng = np.random.default_rng(0)
    # Tinted differently, so that the router can tell one from the other.
    frames = rng.integers(0, 200, (8, 1, 1, 1, 3)) + rng.integers(
        0, 56, (8, contract.frames, contract.height, contract.width, 3)
    )
    frames = frames.astype(np.uint8)
    spread_routes(model, torch.from_numpy(to_network(frames)))
    names = tuple(map(str, range(8)))
    clips = ClipArrays(frames, np.zeros(8, np.int64), names, names, record.classes)
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(model, record, clips, Path(folder) / "bundle", training={}, single=True)
        yield Path(folder) / "bundle", frames

"""The engine against the bare calls that it cannot do without, against all experts, against eager PyTorch."""

from __future__ import annotations

import numpy as np
import torch

from runtime.backends import Session, open_backend
from runtime.clips import to_network
from tests.bench.measure import Ratio, compare
from tests.bench.subject import Subject


def serving(subject: Subject) -> list[Ratio]:
    engine, twin, results = subject.engine, subject.twin, []
    backend, manifest = open_backend("cpu"), engine.bundle.manifest
    router, *experts = (
        backend.load(engine.bundle.read(name), name)
        for name in (manifest.router, *(expert.file for expert in manifest.experts))
    )
    for n in (1, 8):
        clips = subject.frames[:n]
        x = to_network(clips)
        tensor = torch.from_numpy(x)

        def bare(x: np.ndarray = x) -> None:
            route = router.run(x).argmax(1)
            for j in np.unique(route):
                experts[j].run(x[route == j])

        def everything(x: np.ndarray = x, chain: tuple[Session, ...] = (router, *experts)) -> None:
            for session in chain:
                session.run(x)

        def eager(tensor: torch.Tensor = tensor) -> None:
            with torch.inference_mode():
                twin(tensor)

        def ours(clips: np.ndarray = clips) -> None:
            engine.predict_batch(clips)

        results += [
            compare(f"predict_batch / bare session calls, batch {n}", ours, bare),
            compare(f"routed / all experts, batch {n}", bare, everything),
            compare(f"predict_batch / PyTorch twin, batch {n}", ours, eager),
        ]
    return results

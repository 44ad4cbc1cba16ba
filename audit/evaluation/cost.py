"""What an audit costs: passes of clips through router and experts, counted where they happen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hardroute.models import VideoMoE

KINDS = ("router_forward", "router_backward", "expert_forward", "expert_backward")


class Passes:
    """Counts clips: `total[k]` of KINDS[k]. A clip that two experts look at counts as two expert passes."""

    def __init__(self) -> None:
        self.total = np.zeros(len(KINDS), np.int64)

    def _see(self, kind: int, output: Tensor) -> None:
        self.total[kind] += len(output)
        if output.requires_grad:
            # On the output, not on the module: a module's backward hook would rewrite the graph that is attacked.
            output.register_hook(lambda gradient: self._add(kind + 1, len(gradient)))

    def _add(self, kind: int, clips: int) -> None:
        self.total[kind] += clips


@contextmanager
def counted(*models: VideoMoE) -> Iterator[Passes]:
    """Within: every pass through the models' routers and experts is counted, whoever makes it."""
    passes = Passes()
    parts: dict[nn.Module, int] = {}
    for model in models:
        parts |= {model.router: 0} | dict.fromkeys(model.experts, 2)
    handles = [
        part.register_forward_hook(lambda module, args, output, kind=kind: passes._see(kind, output))
        for part, kind in parts.items()
    ]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Cost:
    """Of one attack at one eps, its verdicts included: `passes` (4,), as in KINDS, for `clips` clips."""

    clips: int
    passes: np.ndarray


def spent(costs: dict[str, dict[float, Cost]], clips: int) -> dict[str, Any]:
    """What was spent per clip, and what every attack at every eps on all `clips` clips would have cost.

    The second scales each attack's measured passes per attacked clip; an attack that no clip was left for at
    an eps takes the figure of another eps. One that never ran is listed, and `without_removal` is then too low.
    """
    total, full = np.zeros(len(KINDS)), np.zeros(len(KINDS))
    unknown = []
    for name, by_eps in costs.items():
        ran = [cost for cost in by_eps.values() if cost.clips]
        if not ran:
            unknown.append(name)
            continue
        mean = sum(cost.passes for cost in ran) / sum(cost.clips for cost in ran)
        for cost in by_eps.values():
            total += cost.passes
            full += clips * (cost.passes / cost.clips if cost.clips else mean)
    return {
        "unit": "passes through the router or one expert, per audited clip",
        "spent": per_clip(total, clips),
        "without_removal": per_clip(full, clips),
        "share": float(total[2:].sum() / full[2:].sum()) if full[2:].sum() else None,
        "never_run": unknown,
        "per_attack": {
            name: {f"{eps * 255:g}": {"clips": cost.clips, **_named(cost.passes)} for eps, cost in by_eps.items()}
            for name, by_eps in costs.items()
        },
    }


def per_clip(passes: np.ndarray, clips: int) -> dict[str, float]:
    """`passes` (4,), as in KINDS, for each of `clips` clips."""
    return _named(passes / clips)


def gflops(model: VideoMoE, clip: Tensor, load: np.ndarray) -> dict[str, float]:
    """Floating-point operations (2 per multiply-add) of one clip (1, 3, T, H, W), in 10^9, by layers' shapes.

    `routed`: router and the chosen expert, on average over the load (M,). `dense`: router and all experts.
    """

    def of(module: nn.Module) -> float:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(clip)
        return counter.get_total_flops() / 1e9

    router, experts = of(model.router), np.array([of(expert) for expert in model.experts])
    return {"router": router, "routed": router + float(experts @ load), "dense": router + float(experts.sum())}


def _named(passes: np.ndarray) -> dict[str, float]:
    named = {kind: float(count) for kind, count in zip(KINDS, passes, strict=True)}
    return {**named, "expert_passes": float(passes[2:].sum())}

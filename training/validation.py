"""What a run watches of itself after each epoch: clean and robust accuracy, and whether the router still routes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from audit.attacks import ATTACKS
from audit.attacks.loop import frozen
from models import VideoMoE
from runtime.clips import ClipArrays
from training.batches import batches

# Two paths that mask different things: the margin through hard dispatch, and the joint attack through the gate.
WATCHED = ("pgd-margin", "j-tlga")


def load_entropy(route: Tensor, experts: int) -> float:
    """Entropy of the expert load as a share of its largest value log M: 1 for an even load, 0 for a collapsed router."""
    if experts < 2:
        return 1.0
    share = torch.bincount(route, minlength=experts).double() / len(route)
    return float(torch.special.entr(share).sum() / torch.tensor(float(experts)).log())


def validate(
    model: VideoMoE,
    clips: ClipArrays,
    *,
    eps: float,
    steps: int,
    batch: int,
    device: str,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Accuracies, load and load entropy on clean clips and on clips attacked by WATCHED (worst case per clip)."""
    clean, robust, routes, attacked, flips = [], [], [], [], []
    for x, y in batches(clips, batch, device):
        with frozen(model), torch.no_grad():
            out = model.outputs(x)
            route = out.route
            good = out.deployed.argmax(1) == y
        clean.append(good)
        routes.append(route)
        for name in WATCHED:
            x_adv = ATTACKS[name](model, x, y, eps, steps, seed)
            with frozen(model), torch.no_grad():
                out = model.outputs(x_adv)
                good = good & (out.deployed.argmax(1) == y)
        robust.append(good)
        attacked.append(out.route)
        flips.append(out.route != route)
        progress(len(y))
    experts = len(model.experts)
    before, after = torch.cat(routes), torch.cat(attacked)
    return {
        "clean": _share(torch.cat(clean)),
        "robust": _share(torch.cat(robust)),
        "load": (torch.bincount(before, minlength=experts) / len(before)).tolist(),
        "load_entropy": load_entropy(before, experts),
        "attacked_load_entropy": load_entropy(after, experts),
        "route_flips": _share(torch.cat(flips)),
        "clips": len(before),
    }


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())

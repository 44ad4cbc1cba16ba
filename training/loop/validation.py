"""What a run watches of itself after each epoch: clean and robust accuracy, and whether the router still routes."""

import torch
from torch import Tensor

from hardroute.audit.attacks import ATTACKS, frozen
from hardroute.audit.evaluation import load_entropy, load_of
from hardroute.models import VideoMoE
from hardroute.runtime.datasets import ClipArrays
from hardroute.training.loop.batches import batches
from hardroute.training.precision import Precision
from hardroute.training.run import Validation

# One step and many, through hard dispatch and through the gate, at the router and at all of it: they mask different
# things, and where the one-step figure rises while the others fall, training has overfitted to its inner attack.
WATCHED = ("fgsm", "pgd-margin", "tlga-r", "j-tlga")


def validate(
    model: VideoMoE,
    clips: ClipArrays,
    *,
    eps: float,
    steps: int,
    batch: int,
    device: str,
    seed: int = 0,
    precision: Precision | None = None,
) -> Validation:
    """Accuracies, load and load entropy on clean clips and on clips attacked by WATCHED (worst case per clip).

    `precision`: what the attacks compute in; answers are judged in fp32.
    """
    precision = precision or Precision("fp32", device)
    clean, robust, routes, attacked, flips = [], [], [], [], []
    under: dict[str, list[Tensor]] = {name: [] for name in WATCHED}
    for x, y in batches(clips, batch, device):
        with frozen(model), torch.no_grad():
            out = model.outputs(x)
            route = out.route
            good = out.deployed.argmax(1) == y
        clean.append(good)
        routes.append(route)
        for name in WATCHED:
            with precision.attack():
                x_adv = ATTACKS[name](model, x, y, eps, steps, seed)
            with frozen(model), torch.no_grad():
                out = model.outputs(x_adv)
                under[name].append(clean[-1] & (out.deployed.argmax(1) == y))
            good = good & under[name][-1]
        robust.append(good)
        attacked.append(out.route)
        flips.append(out.route != route)
    before, after = (load_of(torch.cat(r).cpu().numpy(), len(model.experts)) for r in (routes, attacked))
    return Validation(
        clean=_share(clean),
        robust=_share(robust),
        under={name: _share(held) for name, held in under.items()},
        load=tuple(before.tolist()),
        load_entropy=load_entropy(before),
        attacked_load_entropy=load_entropy(after),
        route_flips=_share(flips),
        clips=len(clips.labels),
    )


def _share(hits: list[Tensor]) -> float:
    return float(torch.cat(hits).double().mean())

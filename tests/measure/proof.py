"""What is proven of a bundle's routes, at what cost, and how steep its parts may be.

`python -m tests.measure.proof [BUNDLE] [--data SET] [--clips N] [--seed S]` prints the tables of docs/proof.md. Times
are CPU time on one thread, the least of three runs. With --oracle FILE, an implementation of the same bounds that is
independent of this one is run beside it: a module with `fold` and `Router`, for the shipped kind of router.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hardroute import load_clips, open_set
from hardroute.audit.attacks import ATTACKS
from hardroute.audit.proof import RouteProver, jumps, lipschitz_bound
from hardroute.models import VideoMoE, load_twin
from hardroute.models.router import ConvRouter
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.clips import to_network

EPS = (1, 2, 4, 8)  # in 1/255
ROUTER_ATTACKS = ("pgd-r", "tla-r", "tlga-r")
STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", nargs="?", default="models/zoo/motion")
    parser.add_argument("--data", default="motion")
    parser.add_argument("--clips", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--oracle", type=Path)
    parser.add_argument("--steepness", action="store_true", help="bound router and experts too: minutes")
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle)
    clips = load_clips(open_set(given.data).split("test").take(given.clips, given.seed), bundle.manifest.contract)
    model, x = load_twin(bundle.root), torch.from_numpy(to_network(clips.frames))
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, torch {torch.__version__}"
    print(f"{given.bundle}: {len(x)} clips, seed {given.seed}, {machine}")
    started = time.process_time()
    prover = RouteProver(model, x[0])
    print(f"router traced in {time.process_time() - started:.2f} s")
    routes(model, prover, x, given.oracle)
    if given.steepness:
        steepness(model, x)


def routes(model: VideoMoE, prover: RouteProver, x: Tensor, oracle: Path | None) -> None:
    """Shares of routes proven and moved, and the largest number of experts left."""
    print(
        "| eps | IBP, % | ms a clip | CROWN-IBP, % | ms a clip | experts not excluded | moved by an attack, % | below |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for k in EPS:
        eps = k / 255
        loose, fast = least(partial(prover, x, eps, linear=False))
        tight, slow = least(partial(prover, x, eps))
        moved, lead = attacked(model, x, tight.route, eps)
        left = float((~tight.excluded).sum(1).double().mean())
        ms = [1000 * seconds / len(x) for seconds in (fast, slow)]
        contradictions = int(((tight.lead > lead) | (tight.proven & moved)).sum())
        print(
            f"| {k}/255 | {share(loose.proven)} | {ms[0]:.1f} | {share(tight.proven)} | {ms[1]:.1f} | {left:.2f} | "
            f"{share(moved)} | {contradictions} |"
        )
        if oracle:
            beside(model, x, tight.route, tight.lead, eps, oracle)


def attacked(model: VideoMoE, x: Tensor, route: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(N,) bool: an attack on the router moves the route; (N,) the smallest lead that any of them reached."""
    moved, lead = torch.zeros(len(x), dtype=torch.bool), torch.full((len(x),), torch.inf, dtype=torch.float64)
    y = torch.zeros_like(route)
    for name in ROUTER_ATTACKS:
        for some in torch.arange(len(x)).split(32):
            x_adv = ATTACKS[name](model, x[some], y[some], eps, steps=STEPS)
            with torch.no_grad():
                scores = model.router(x_adv).double()
            at = route[some].unsqueeze(1)
            found = scores.gather(1, at).squeeze(1) - scores.scatter(1, at, -torch.inf).amax(1)
            lead[some] = torch.minimum(lead[some], found)
            moved[some] |= scores.argmax(1) != route[some]
    return moved, lead


def beside(model: VideoMoE, x: Tensor, route: Tensor, lead: Tensor, eps: float, path: Path) -> None:
    """Our bounds next to those of an implementation of another author."""
    spec = importlib.util.spec_from_file_location("oracle", path)
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    router = model.router
    assert isinstance(router, ConvRouter)
    score = router.score
    layers = [module.fold(router.features[i], router.features[i + 1]) for i in (0, 3, 6)]
    assert isinstance(score, nn.Linear)
    theirs = module.Router(
        layers,
        score.weight.detach() * router.gain,
        score.bias.detach() * router.gain,
        router.normalize.mean,
        router.normalize.std,
    )
    with torch.no_grad():
        found = [
            max(float(bound(clip.unsqueeze(0), eps, int(top)).min()) for bound in (theirs.ibp, theirs.crown_ibp))
            for clip, top in zip(x, route, strict=True)
        ]
    more = lead - torch.tensor(found, dtype=torch.float64)
    ends = f"{more.min():.1e} to {more.max():.1e}"
    print(f"    beside the other: it proves {100 * np.mean(np.array(found) > 0):.1f} %; ours is higher by {ends}")


def steepness(model: VideoMoE, x: Tensor) -> None:
    """Lipschitz bounds of router and experts next to the steepest slopes seen, and the mixture's largest jump."""
    print("| part | bound, L2 to L2 | steepest gradient of a score seen | seconds |")
    print("|---|---|---|---|")
    for name, part in [("router", model.router), *((f"expert {i}", each) for i, each in enumerate(model.experts))]:
        started = time.process_time()
        bound = lipschitz_bound(part, x[0], name)
        seconds = time.process_time() - started
        print(f"| {name} | {bound:.3g} | {steepest(part, x[:32]):.3g} | {seconds:.0f} |")
    print(f"largest jump between experts at {len(x)} clips: {float(jumps(model, x).max()):.3g}")
    print(f"longest perturbation at 8/255: {8 / 255 * math.sqrt(x[0].numel()):.3g}")


def steepest(part: nn.Module, x: Tensor) -> float:
    """The largest norm of a score's gradient: a slope that a small enough step takes."""
    found = 0.0
    for column in range(part(x[:1]).shape[1]):
        clips = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(part(clips)[:, column].sum(), clips)
        found = max(found, float(gradient.flatten(1).norm(dim=1).max()))
    return found


def least(run: Callable[[], Any]) -> tuple[Any, float]:
    """What `run` gives, and the least CPU time of three runs."""
    spent = []
    for _ in range(3):
        started = time.process_time()
        found = run()
        spent.append(time.process_time() - started)
    return found, min(spent)


def share(some: Tensor) -> str:
    return f"{100 * float(some.double().mean()):.1f}"


if __name__ == "__main__":
    main()

"""PGD-10 of ours, of the shortest loop and of each library on one routed clip model, turn by turn in one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hardroute.audit.attacks import ATTACKS
from hardroute.runtime.clips import to_network
from tests.measure.bench.attacking import EPS, minimal
from tests.measure.bench.measure import Ratio, compare
from tests.measure.bench.subject import Subject
from tests.measure.peers.libraries import LIBRARIES

STEPS, CLIPS = 10, 16  # a power of two: a loss averaged over so many clips has the gradients' last bits of a sum
SIZE = EPS / 4
PGD = ATTACKS["pgd-hard"]


def speed(subject: Subject) -> tuple[list[Ratio], dict[str, Any]]:
    """Ratios of time, and what each library's x_adv is next to ours without a random start."""
    model = subject.twin
    x, y = torch.from_numpy(to_network(subject.frames[:CLIPS])), torch.from_numpy(subject.labels[:CLIPS])
    at = (x, y, EPS, SIZE, STEPS)

    def ours() -> Tensor:
        return PGD(model, x, y, EPS, STEPS, alpha=SIZE)

    ratios = [compare("PGD-10, ours / minimal loop", ours, lambda: minimal(model, *at, random_start=True))]
    for name, library in LIBRARIES.items():
        for frozen in (False, True):
            theirs = frozen_or_not(library(model, *at, random_start=True), model, frozen)
            ratios.append(compare(f"PGD-10, ours / {name}{', weights frozen' * frozen}", ours, theirs, turns=7))
    still = PGD.but(random_start=False, keep="last")(model, x, y, EPS, STEPS, alpha=SIZE)
    found = {name: library(model, *at, random_start=False)() for name, library in LIBRARIES.items()}
    found["minimal loop"] = minimal(model, *at, random_start=False)
    return ratios, {name: agreement(model, x_adv, still) for name, x_adv in found.items()}


def frozen_or_not(run: Callable[[], Tensor], model: torch.nn.Module, frozen: bool) -> Callable[[], Tensor]:
    """`run` on weights that want a gradient, as those of a loaded model do, or on weights that their user froze."""

    def call() -> Tensor:
        model.requires_grad_(not frozen)
        return run()

    return call


@torch.no_grad()
def agreement(model: torch.nn.Module, found: Tensor, ours: Tensor) -> dict[str, float]:
    """How far two x_adv (N, ...) are apart.

    On a deep network a gradient of nearly zero may take either sign by the last bit of a sum, and later steps follow
    it: hence the share of pixels more than 1e-6 apart, and of clips with another label, beside the largest difference.
    """
    apart = (found - ours).abs()
    return {
        "largest": float(apart.max()),
        "pixels_apart": float((apart > 1e-6).float().mean()),
        "labels_apart": float((model(found).argmax(1) != model(ours).argmax(1)).float().mean()),
    }

"""Temporal translation: gradients averaged over clips whose frames are shifted in time (Wei et al. 2022)."""

from typing import Any

import torch
from torch import Tensor

from hardroute.audit.attacks.loop import Climb, View, ascend

SHIFTS = range(-7, 8)
# The normal density between -3 and 3 standard deviations, as is usual for such kernels.
WEIGHTS = torch.linspace(-3, 3, len(SHIFTS)).square().div(-2).softmax(0).tolist()


class Translated(Climb):
    """The same objective, whose gradient is the weighted mean over cyclic frame shifts, each shifted back."""

    def at(self, x_adv: Tensor, gradient: bool = True, judge: bool = True) -> View:
        view = super().at(x_adv, gradient, judge)
        if not gradient:
            return view
        total = torch.zeros_like(x_adv)
        for shift, weight in zip(SHIFTS, WEIGHTS, strict=True):
            found = view if shift == 0 else super().at(x_adv.roll(shift, dims=2), judge=False)
            total += weight * found.gradient.roll(-shift, dims=2)
        return View(view.value, total, view.fooled)


def translate(climb: Climb, start: Tensor, **how: Any) -> Tensor:
    """`ascend` by the averaged gradient: 15 passes a step."""
    return ascend(Translated(climb.objective, climb.reference, climb.settings), start, **how)

"""What a method costs to train, in floating-point operations, so that methods can be given equal shares."""

import functools
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from models import build_model
from training.losses import step_loss
from training.methods import find_method
from training.settings import FitSettings

CLIPS = 4


class Operations(TorchDispatchMode):
    """Inside, adds up the operations of every convolution and matrix product, backward passes included.

    torch's own FlopCounterMode watches modules too, and so fails at an attack's gradient with respect to the clip.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


@functools.cache  # a comparison asks about its reference once for each method
def flops_per_clip(settings: FitSettings, classes: int) -> float:
    """Operations (2 per multiply-add) that one training clip costs in one epoch of the method's schedule.

    Forward and backward passes of inner attacks and outer losses, counted on random clips by the layers' shapes; what
    the optimiser and validation add is left out.
    """
    torch.manual_seed(0)
    model = build_model(settings.model(classes))
    x, y = torch.rand(CLIPS, *settings.contract.shape), torch.arange(CLIPS) % classes
    with Operations() as counted:
        for step in find_method(settings.method).steps:
            step_loss(step, model.train(), x, y, settings.eps, settings, torch.zeros_like).backward()
    return counted.total / CLIPS


def equal_epochs(settings: FitSettings, reference: FitSettings, classes: int) -> int:
    """Epochs that cost `settings` what the reference's epochs cost it; at least one."""
    share = flops_per_clip(reference, classes) / flops_per_clip(settings, classes)
    return max(1, round(reference.epochs * share))

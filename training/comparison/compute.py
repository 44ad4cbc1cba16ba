"""What a method costs to train, in floating-point operations, so that methods can be given equal shares."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hardroute.models import VideoMoE, build_model
from hardroute.training.loop.shared_start import common_steps, leader
from hardroute.training.losses import step_loss
from hardroute.training.methods import find_method
from hardroute.training.settings import FitSettings

# Clips for each expert: attacks run an expert on a single clip as on two (hardroute.audit.attacks.batch_invariance).
EACH = 2


class EvenRouter(nn.Module):
    """A router that costs what it costs and sends as many clips to each expert as to any other.

    Experts of several kinds differ in cost, and where an untrained router sends its clips is chance.
    """

    def __init__(self, router: nn.Module) -> None:
        super().__init__()
        self.router = router

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.router(x)
        clips, experts = scores.shape
        away = (torch.arange(experts) - torch.arange(clips)[:, None]) % experts
        return 0 * scores - away


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


@functools.cache  # a comparison asks for the same ones again and again
def flops_per_clip(settings: FitSettings, classes: int, together: bool = False) -> float:
    """Operations (2 per multiply-add) that one training clip costs in one epoch of the method's schedule.

    Forward and backward passes of inner attacks and outer losses, counted on random clips, an even share for each
    expert, by the layers' shapes; what the optimiser and validation add is left out. `together`: in an epoch of the
    start (hardroute.training.loop.shared_start).
    """
    torch.manual_seed(0)
    method, whole = find_method(settings.method), build_model(settings.model(classes))
    whole = VideoMoE(EvenRouter(whole.router), whole.experts)
    clips = len(whole.experts) * EACH
    steps = common_steps(method, settings.start == "one") if together else [(step, False) for step in method.steps]
    x, y = torch.rand(clips, *settings.contract.shape), torch.arange(clips) % classes
    total = 0.0
    for step, first in steps:
        model = (leader(whole) if first else whole).train()
        with Operations() as counted:
            step_loss(step, model, x, y, settings.eps, settings, torch.zeros_like).backward()
        total += counted.total
    return total / clips


def run_flops(settings: FitSettings, classes: int) -> float:
    """Operations that one training clip costs in a whole run."""
    one = settings.model_copy(update={"epochs": 1, "together": 0.0})  # one count for any number of epochs
    together = settings.epochs_together
    flops = (settings.epochs - together) * flops_per_clip(one, classes)
    return flops + (together * flops_per_clip(one, classes, together=True) if together else 0)


def equal_epochs(settings: FitSettings, reference: FitSettings, classes: int) -> int:
    """Epochs that bring `settings` nearest to what the reference's run costs; at least one."""
    goal, epochs = run_flops(reference, classes), 1

    def miss(epochs: int) -> float:
        return abs(run_flops(settings.model_copy(update={"epochs": epochs}), classes) - goal)

    while miss(epochs + 1) < miss(epochs) or miss(epochs + 2) < miss(epochs):
        epochs += 1
    return epochs

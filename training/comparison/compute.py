"""What a method costs to train, in floating-point operations, so that methods can be given equal shares."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hardroute.models import VideoMoE, build_model
from hardroute.training.loop import single_expert, start_steps
from hardroute.training.losses import step_gradients
from hardroute.training.methods import find_method
from hardroute.training.run import Run
from hardroute.training.settings import FitSettings

# Clips for each expert: attacks run an expert on a single clip as on two (hardroute.audit.attacks.batch_invariance).
EACH = 2


class FixedRouter(nn.Module):
    """A router that costs what it costs, and sends all clips to one expert, or as many to each as to any other.

    Experts of several kinds differ in cost, and where an untrained router sends its clips is chance.
    """

    def __init__(self, router: nn.Module, expert: int | None) -> None:
        super().__init__()
        self.router, self.expert = router, expert

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.router(x)
        clips, experts = scores.shape
        to = torch.arange(clips)[:, None] if self.expert is None else self.expert
        return 0 * scores - (torch.arange(experts) - to) % experts


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
def flops_per_clip(settings: FitSettings, classes: int, shared: bool = False, expert: int | None = None) -> float:
    """Operations (2 per multiply-add) that one training clip costs in one epoch of the method's schedule.

    Forward and backward passes of inner attacks and outer losses, counted on random clips by the layers' shapes; what
    the optimiser and validation add is left out.

    Args:
        shared: in an epoch of the shared start (hardroute.training.loop.phases).
        expert: that all clips are routed to; None: an even share for each.
    """
    torch.manual_seed(0)
    method, whole = find_method(settings.method), build_model(settings.model(classes))
    whole = VideoMoE(FixedRouter(whole.router, expert), whole.experts)
    clips = len(whole.experts) * EACH
    steps = start_steps(method, settings.start == "one") if shared else [(step, False) for step in method.steps]
    x, y = torch.rand(clips, *settings.contract.shape), torch.arange(clips) % classes
    total = 0.0
    for step, first in steps:
        model = (single_expert(whole) if first else whole).train()
        with Operations() as counted:
            step_gradients(step, model, x, y, settings.eps, settings, torch.zeros_like)
        total += counted.total
    return total / clips


def run_flops(settings: FitSettings, classes: int) -> float:
    """Operations that one training clip costs in a whole run whose experts are evenly loaded."""
    one = settings.model_copy(update={"epochs": 1, "shared_start": 0.0})  # one count for any number of epochs
    shared = settings.shared_epochs
    flops = (settings.epochs - shared) * flops_per_clip(one, classes)
    return flops + (shared * flops_per_clip(one, classes, shared=True) if shared else 0)


def spent_flops(run: Run) -> float:
    """Operations that one training clip cost in a run so far, by the loads that its experts had in it.

    An epoch costs the mean of what it would cost with all clips at one expert, weighted by the experts' shares of its
    passes. Epochs of older versions, which did not note them, count with even loads.
    """
    settings, classes = run.record.settings, len(run.record.classes)
    one = settings.model_copy(update={"epochs": 1, "shared_start": 0.0})
    kinds, total = settings.kinds, 0.0
    for epoch in run.metrics:
        shared = epoch.epoch <= settings.shared_epochs
        if not epoch.trained_load:
            total += flops_per_clip(one, classes, shared)
        for expert, share in enumerate(epoch.trained_load):
            total += share * flops_per_clip(one, classes, shared, expert % len(kinds))
    return total


def equal_epochs(settings: FitSettings, reference: FitSettings, classes: int) -> int:
    """Epochs that bring `settings` nearest to what the reference's run costs; at least one."""
    goal, epochs = run_flops(reference, classes), 1

    def miss(epochs: int) -> float:
        return abs(run_flops(settings.model_copy(update={"epochs": epochs}), classes) - goal)

    while miss(epochs + 1) < miss(epochs) or miss(epochs + 2) < miss(epochs):
        epochs += 1
    return epochs

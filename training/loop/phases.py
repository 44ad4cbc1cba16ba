"""What is trained when: a shared start, before experts specialise, and then the method's schedule.

Hard routing shows an expert only the clips that are sent to it: a quarter of the set for each of four. With the start
"one", experts of one kind are one network at first, which sees every clip; then they part. (For dense networks: sparse
upcycling, Komatsuzaki et al. 2023.) Experts of several kinds cannot stand for one another, and do not learn at one
pace: with the start "mixture" the whole is trained by the method's `start`, so that its router finds out which of them
is right about which clips, and the schedule then keeps it from being led astray.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardroute.models import Folded, VideoMoE
from hardroute.models.router import ConstantRouter
from hardroute.training.methods import Method, Part, Step


def start_steps(method: Method, one: bool) -> list[tuple[Step, bool]]:
    """The steps of an epoch of the start, each with whether the first expert alone takes it; `one`: for all others.

    The router takes its own steps beside the experts, so that it is ready when they part.
    """
    start = method.start or method.steps[-1]
    return [(step, False) for step in method.steps if one and step.part == "router"] + [(start, one)]


def single_expert(model: VideoMoE, index: int = 0) -> VideoMoE:
    """One expert as a mixture of one; it shares the model's weights."""
    return VideoMoE(ConstantRouter(), [model.experts[index]])


def copy_first_expert(experts: nn.ModuleList, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Makes each expert a copy of the first, with the optimiser's state if one is given."""
    first, *others = experts
    for other in others:
        other.load_state_dict(first.state_dict())
        if optimizer is None:
            continue
        for theirs, mine in zip(first.parameters(), other.parameters(), strict=True):
            if theirs in optimizer.state and theirs is not mine:
                optimizer.state[mine] = {k: v.clone() for k, v in optimizer.state[theirs].items()}


class Trainable:
    """A model of which a step trains all or one part. `folded` gives the copy that is attacked in its place."""

    def __init__(self, model: VideoMoE) -> None:
        self.model, self.folded = model, Folded(model)

    def train(self, keep_norm: bool = False) -> None:
        """Training mode. `keep_norm`: experts normalise by the statistics they have gathered, and gather no more."""
        self.model.train()
        for module in self.model.experts.modules() if keep_norm else ():
            if isinstance(module, _BatchNorm):
                module.eval()

    @contextmanager
    def only(self, part: Part) -> Iterator[None]:
        """Inside, only the weights of one part take gradients."""
        parts: dict[Part, nn.Module] = {
            "moe": self.model,
            "router": self.model.router,
            "experts": self.model.experts,
        }
        self.model.requires_grad_(False)
        parts[part].requires_grad_(True)
        try:
            yield
        finally:
            self.model.requires_grad_(True)

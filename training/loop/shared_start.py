"""The start of a run, before experts specialise.

Hard routing shows an expert only the clips that are sent to it: a quarter of the set for each of four. With the start
"one", experts of one kind are one network at first, which sees every clip; then they part. (For dense networks: sparse
upcycling, Komatsuzaki et al. 2023.) Experts of several kinds cannot stand for one another, and do not learn at one
pace: with the start "mixture" the whole is trained by the method's `start`, so that its router finds out which of them
is right about which clips, and the schedule then keeps it from being led astray.
"""

import torch
from torch import nn

from hardroute.models import VideoMoE
from hardroute.models.router import ConstantRouter
from hardroute.training.methods import Method, Step


def common_steps(method: Method, one: bool) -> list[tuple[Step, bool]]:
    """The steps of an epoch of the start, each with whether the first expert alone takes it; `one`: for all others.

    The router takes its own steps beside the experts, so that it is ready when they part.
    """
    start = method.start or method.steps[-1]
    return [(step, False) for step in method.steps if one and step.part == "router"] + [(start, one)]


def leader(model: VideoMoE) -> VideoMoE:
    """The first expert as a mixture of one; it shares the model's weights."""
    return VideoMoE(ConstantRouter(), [model.experts[0]])


def spread(experts: nn.ModuleList, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Makes each expert a copy of the first, with the optimiser's state if one is given."""
    first, *others = experts
    for other in others:
        other.load_state_dict(first.state_dict())
        if optimizer is None:
            continue
        for theirs, mine in zip(first.parameters(), other.parameters(), strict=True):
            if theirs in optimizer.state and theirs is not mine:
                optimizer.state[mine] = {k: v.clone() for k, v in optimizer.state[theirs].items()}

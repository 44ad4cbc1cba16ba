"""The start of a run in which all experts of a kind learn as one, from every clip.

Hard routing shows an expert only the clips that are sent to it: a quarter of the set for each of four. While they are
one, each has seen all of it; then they part and specialise. (For dense networks: sparse upcycling, Komatsuzaki et
al. 2023.)
"""

from collections.abc import Hashable, Sequence

import torch
from torch import nn

from models import VideoMoE
from models.router import ConstantRouter


def groups_of(kinds: Sequence[Hashable]) -> list[list[int]]:
    """Indices of equal kinds together, in the order of their first: ("a", "b", "a") -> [[0, 2], [1]]."""
    return [[i for i, kind in enumerate(kinds) if kind == first] for first in dict.fromkeys(kinds)]


def share_of(batch: int, shares: int, shards: int) -> int:
    """Clips in a batch of one of `shares` kinds that share the clips: whole shards, of two clips or more.

    >>> share_of(32, 4, 1), share_of(8, 4, 2), share_of(6, 1, 1)
    (8, 4, 6)
    """
    return shards * max(batch // (shares * shards), 2)


def leaders(model: VideoMoE, groups: Sequence[Sequence[int]]) -> list[VideoMoE]:
    """The first expert of each group as a mixture of one; it shares the model's weights."""
    return [VideoMoE(ConstantRouter(), [model.experts[first]]) for first, *_ in groups]


def spread(
    experts: nn.ModuleList, groups: Sequence[Sequence[int]], optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Makes each expert of a group a copy of the group's first, with the optimiser's state if one is given."""
    for first, *others in groups:
        for other in others:
            experts[other].load_state_dict(experts[first].state_dict())
            if optimizer is None:
                continue
            for theirs, mine in zip(experts[first].parameters(), experts[other].parameters(), strict=True):
                if theirs in optimizer.state and theirs is not mine:
                    optimizer.state[mine] = {k: v.clone() for k, v in optimizer.state[theirs].items()}

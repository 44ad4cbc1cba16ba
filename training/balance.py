"""Keeping a router from sending everything to one expert while it trains."""

import torch
from torch import Tensor

SHARP = 10.0  # size of the logits that are assigned by: large enough for a gate near to one choice
TINY = 1e-30


def load_balance(router: Tensor) -> Tensor:
    """M * sum_i f_i P_i over a batch of router logits (N, M): 1 for an even load, up to M for a collapsed router.

    f is the share of clips routed to each expert (no gradient), P the mean gate weight (Fedus et al. 2022, eq. 4).
    """
    experts = router.shape[1]
    share = torch.bincount(router.argmax(1), minlength=experts) / len(router)
    return experts * (share * router.softmax(1).mean(0)).sum()


@torch.no_grad()
def balanced_assignment(router: Tensor, rounds: int = 50) -> Tensor:
    """(N,) experts for router logits (N, M): near the router's own choice, but an even share of the batch for each.

    Sinkhorn iterations on the gate: each round scales the experts' columns to an equal sum and the clips' rows to one.
    What all clips have in common cancels, so even a router that prefers one expert everywhere gives a split. (Routing
    as balanced assignment: Lewis et al. 2021, BASE layers.) The logits are first brought to one size: a gate that is
    nearly even has even sums whatever its largest entries are, and the split would not be even.
    """
    centred = router.double() - router.double().mean(0)
    centred = centred - centred.mean(1, keepdim=True)
    log = (SHARP * centred / centred.square().mean().sqrt().clamp_min(TINY)).log_softmax(1)
    for _ in range(rounds):
        log = log - log.logsumexp(0, keepdim=True)
        log = log - log.logsumexp(1, keepdim=True)
    return log.argmax(1)
